"""Every panel of the dashboard has data: a real Prometheus is asked the panels' expressions."""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any, NoReturn
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from millpond.producer.client import Client
from millpond.worker.local.embedded import Embedded
from tests.conftest import Eventually
from tests.scenarios.drills.prometheus import prometheus

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DASHBOARD = json.loads((Path(__file__).parents[3] / "deploy/grafana/millpond.json").read_text())
LOGIN = "prometheus:asks-often"
#: A scrape each 15 s of the shipped configuration takes so much less here; Grafana asks for four of them.
SCALE, RATE_INTERVAL = 20, "3s"
#: The deliveries of a message that kills its worker, and of one whose lease is lost.
QUEUE = {"bound": 40, "max_deliveries": 2, "lease_seconds": 3}
POND = {
    "pools": ["default"],
    "flower": True,
    "settings": {
        "kinds": ("broker_kinds",),
        "flower_basic_auth": (LOGIN,),
        "table": {"pools": {"default": {"concurrency": 4, "prefetch": 0}}, "queues": {"default": QUEUE}},
    },
}


@pytest.fixture
def asked(
    pond: Embedded, tmp_path: Path, missing: Callable[[str], NoReturn]
) -> Iterator[Callable[[str], list[float]]]:
    """Return a function that asks a Prometheus as Grafana would, and returns the answer's finite values."""
    program = shutil.which("prometheus") or missing("prometheus")

    def ask(expression: str) -> list[float]:
        with urlopen(
            f"{url}/api/v1/query?{urlencode({'query': filled_in(expression)})}", timeout=20
        ) as answer:
            found = json.load(answer)["data"]["result"]
        values = [float(series["value"][1]) for series in found]
        return [value for value in values if math.isfinite(value)]

    assert pond.flower_url is not None
    page = pond.flower_url.rstrip("/")
    with prometheus(program, tmp_path / "prometheus", flower=page, login=LOGIN, scale=SCALE) as url:
        yield ask


class Every:
    """A thing that is due at once, and again when this many seconds have passed since it was done."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._due_at = seconds, 0.0

    def is_due(self) -> bool:
        """True if it is due."""
        is_due = monotonic() >= self._due_at
        if is_due:
            self._due_at = monotonic() + self._seconds
        return is_due


def filled_in(expression: str) -> str:
    """Replace the variables as Grafana does, with all queues and pools chosen."""
    variables = {each["name"]: each.get("allValue") for each in DASHBOARD["templating"]["list"]}
    text = expression.replace("$__rate_interval", RATE_INTERVAL)
    return re.sub(r"\$(\w+)", lambda found: variables[found[1]], text)


def expressions() -> dict[str, str]:
    """Return the expressions of the panels, by panel and number."""
    return {
        f"{panel['title']} {n}": target["expr"]
        for panel in DASHBOARD["panels"]
        for n, target in enumerate(panel.get("targets", ()))
    }


def test_every_panel_has_data(
    asked: Callable[[str], list[float]], pond: Embedded, tmp_path: Path, eventually: Eventually
) -> None:
    """While tasks succeed, wait, fail, are retried, shed, refused and kill a worker, no panel stays empty."""
    from broker_kinds import Act

    def act(**what: Any) -> Act:
        return Act(file=str(tmp_path / "notes"), **what)

    unseen = expressions()
    with Client(settings=pond.settings) as client:
        client.send(act(), delay=timedelta(minutes=5))
        kills = Every(10.0)

        def is_seen() -> bool:
            # One may be shed, or be redelivered before the first scrape, of which no rate knows.
            if any("redelivered" in expression for expression in unseen.values()) and kills.is_due():
                client.send(act(what="kill"), overflow="shed")
            for overflow in ("reject", "shed"):
                list(client.send_each((act(seconds=0.02) for _ in range(60)), overflow=overflow))
            list(client.send_each((act(what=what) for what in ("fail", "retry")), overflow="shed"))
            for name, expression in list(unseen.items()):
                # On a busy machine two scrapes are further apart than the window of a rate.
                if any(value > 0 for value in asked(f"max_over_time(({expression})[5m:500ms])")):
                    del unseen[name]
            return not unseen

        try:
            eventually(is_seen, 60, every_seconds=0.2)
        finally:
            print("never more than nothing:", unseen)
    for variable in DASHBOARD["templating"]["list"][1:]:
        metric, label = re.findall(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])[0]
        assert asked(f"count by ({label}) ({metric})")

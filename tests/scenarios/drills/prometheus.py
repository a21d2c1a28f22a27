"""Run Prometheus with the shipped configuration, rules and alerts, whose durations are shortened."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen

from tests.harness.own_server import free_port

SHIPPED = Path(__file__).parents[3] / "deploy" / "prometheus"

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_START_SECONDS = 60


def firing(prometheus: str) -> set[str]:
    """Return the names of the alerts that fire, each with its queue, pool, schedule or kind."""
    with urlopen(f"{prometheus}/api/v1/alerts", timeout=10) as answer:
        alerts = json.load(answer)["data"]["alerts"]
    return {_named(alert["labels"]) for alert in alerts if alert["state"] == "firing"}


@contextmanager
def prometheus(program: str, folder: Path, *, flower: str, login: str, scale: float) -> Iterator[str]:
    """Run Prometheus, which scrapes a Flower, and yield its URL. At a `scale` of 20 a minute takes 3 s."""
    folder.mkdir()
    user, _, password = login.partition(":")
    (folder / "password").write_text(password)
    config = (SHIPPED / "prometheus.yml").read_text()
    config = config.replace("flower:5555", flower.partition("//")[2])
    config = config.replace("/etc/prometheus/millpond-password", str(folder / "password"))
    (folder / "prometheus.yml").write_text(
        shorten_durations(config.replace("username: prometheus", f"username: {user}"), scale)
    )
    for rules in ("millpond.rules.yml", "millpond.alerts.yml"):
        (folder / rules).write_text(shorten_durations((SHIPPED / rules).read_text(), scale))
    port = free_port()
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, running, folder / "log")
        yield url
    finally:
        running.kill()
        running.wait()


def shorten_durations(text: str, scale: float) -> str:
    """Return a configuration with its intervals, delays and ranges divided by `scale`. Names are kept."""

    def shorten(found: "re.Match[str]") -> str:
        ms = int(found["number"]) * _SECONDS[found["unit"]] * 1000 / scale
        return f"{found['before']}{round(ms)}ms{found['after']}"

    return re.sub(
        r"(?P<before>\[|for: |_interval: )(?P<number>\d+)(?P<unit>[smh])(?P<after>\b|\])", shorten, text
    )


def _named(labels: dict[str, str]) -> str:
    of = next((labels[name] for name in ("queue", "pool", "schedule", "kind") if name in labels), "")
    return f"{labels['alertname']} {of}".strip()


def _wait_for(url: str, running: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = monotonic() + _START_SECONDS
    while True:
        try:
            with urlopen(f"{url}/-/ready", timeout=5):
                return
        except OSError:
            assert running.poll() is None, log.read_text()
            assert monotonic() < deadline, "Prometheus does not answer"
            sleep(0.1)

"""Real pools, brought into each state on purpose, and the answer of `millpond why` for them."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from millpond.broker.connection import Store
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.tasks.settings import Settings
from tests.harness.millpond_command import run_millpond
from tests.harness.one_worker import settings_for, workers

Eventually = Callable[..., Any]

pytestmark = [pytest.mark.slow, pytest.mark.evidence, pytest.mark.timeout(300)]


def send(store: Store, count: int, kind: str, **fields: Any) -> None:
    publish(store, [compose(kind, fields, queue="default", sent_at_ms=0) for _ in range(count)])


def why(settings: Settings) -> dict[str, str]:
    """Ask the command."""
    done = run_millpond(settings, "why", "default", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("expected", "pool", "queue", "count", "kind", "fields"),
    [
        ("workers", {}, {}, 1_000, "squares.square", {"n": 2, "hold_seconds": 0.3}),
        ("limit", {}, {"rate": 5.0}, 1_000, "squares.square", {"n": 2}),
        ("batching", {}, {"bound": 1_000_000}, 400_000, "squares.square", {"n": 2}),
        ("processor", {}, {}, 8_000, "broker.act", {"what": "burn", "seconds": 0.2}),
        ("processor", {"executor": "prefork"}, {}, 8_000, "broker.act", {"what": "burn", "seconds": 0.2}),
    ],
    ids=["workers", "limit", "batching", "processor-threads", "processor-prefork"],
)
def test_a_pool_in_a_state_is_said_to_be_in_it(
    expected: str,
    pool: dict[str, Any],
    queue: dict[str, Any],
    count: int,
    kind: str,
    fields: dict[str, Any],
    url: str,
    plain_store: Store,
    kinds_path: None,
    tmp_path: Path,
    eventually: Eventually,
) -> None:
    """A pool that is brought into a state has its verdict within half a minute."""
    settings = settings_for(url, pool={"concurrency": 4, **pool}, queue=queue)
    if kind == "broker.act":
        if os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1):
            pytest.skip("others use the processors, so bodies get too little of them to be seen computing")
        fields = {**fields, "file": str(tmp_path / "notes")}
    with workers(settings, tmp_path):
        for _ in range(0, count, 1_000):
            send(plain_store, min(count, 1_000), kind, **fields)
        said = eventually(
            lambda: (verdict := why(settings))["state"] == expected and verdict, 60, every_seconds=2
        )
    print(said)


def test_a_pool_that_keeps_up_is_said_to(
    url: str, plain_store: Store, kinds_path: None, tmp_path: Path, eventually: Eventually
) -> None:
    """While a few tasks come and go every moment, the verdict has no fault; then it is idle."""
    settings = settings_for(url, pool={"concurrency": 4})

    def is_well() -> bool:
        send(plain_store, 5, "squares.square", n=2, hold_seconds=0.01)
        return why(settings)["state"] == "keeps up"

    with workers(settings, tmp_path):
        eventually(is_well, 60, every_seconds=1)
        eventually(lambda: why(settings)["state"] == "idle", 120, every_seconds=5)


def test_a_dependency_that_becomes_slow_is_told_from_too_few_workers(
    url: str, plain_store: Store, kinds_path: None, tmp_path: Path, eventually: Eventually
) -> None:
    """The verdict is a lack of workers, then a slow dependency once each task waits ten times as long."""
    settings = settings_for(url, pool={"concurrency": 4, "prefetch": 4})
    with workers(settings, tmp_path):
        send(plain_store, 9_000, "squares.square", n=1, hold_seconds=0.03)
        eventually(lambda: why(settings)["state"] == "workers", 60, every_seconds=2)
        until = monotonic() + 15
        while monotonic() < until:  # the usual rate is learnt from samples, one each ten seconds
            sleep(0.5)
        plain_store.client.delete("default")
        send(plain_store, 2_000, "squares.square", n=1, hold_seconds=0.3)
        said = eventually(
            lambda: (verdict := why(settings))["state"] == "dependency" and verdict, 150, every_seconds=3
        )
    assert "times the" in said["why"]
    print(said)

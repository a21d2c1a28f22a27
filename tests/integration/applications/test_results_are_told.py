"""However a task ends, its result backend hears of it: no `.get()` and no chord waits for ever."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.application import Application, Way, application

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Send one of each, then wait for all: how each ended, by the class of its error.
PROGRAM = """
import json, os, time
from celery import chord
from celery.result import AsyncResult
from millpond import Client
from millpond.broker import limits
from orders import app, add, die, endless, reject, sleep, total

prefork = os.environ["ORDERS_POOL"] == "prefork"
whole = os.environ["ORDERS_WAY"] == "app"
sent, chords = {}, {}
with Client(os.environ["ORDERS_BROKER"]) as client:
    sent["revoked"] = add.apply_async((1, 1), countdown=3600)
    sent["cancelled"] = add.apply_async((1, 1), countdown=3600)
    header = [add.si(1, 1), add.si(1, 1).set(countdown=3600)]
    chords["of a cancelled one"] = chord(header)(total.s())
    busy = [sleep.delay(1.5) for _ in range(2)]
    sent["expired"] = add.apply_async((1, 1), expires=0.3)
    sent["rejected"] = reject.delay()
    if prefork:
        sent["killed"] = die.delay()
        chords["of a killed one"] = chord([add.si(1, 1), die.si()])(total.s())
        sent["time limit"] = endless.delay()
    if whole:
        app.conf.broker_transport_options = {"queues": {"small": {"overflow": "shed"}}}
        limits.pause(client.store, "small")
        sent["shed"] = add.apply_async((1, 1), queue="small")
        add.apply_async((2, 2), queue="small")
        sent["not accepted"] = add.apply_async((1, 1), serializer="pickle")
        sent["unknown"] = app.send_task("orders.nothing")
    sent["revoked"].revoke()
    assert client.cancel(sent["cancelled"].id).found
    children = chords["of a cancelled one"].parent.results
    assert client.cancel(children[1].id).found
ended = {}
for name, result in {**sent, **chords}.items():
    try:
        ended[name] = repr(result.get(timeout=60))
    except Exception as error:
        ended[name] = f"{result.state} {type(error).__name__}"
print(json.dumps(ended))
"""

ENDED = {
    "revoked": "REVOKED TaskRevokedError",
    "cancelled": "REVOKED TaskRevokedError",
    "of a cancelled one": "FAILURE TaskRevokedError",
    "expired": "REVOKED TaskRevokedError",
    "rejected": "FAILURE Reject",
}
ON_PREFORK = {
    "killed": "FAILURE WorkerLostError",
    "of a killed one": "FAILURE WorkerLostError",
    "time limit": "FAILURE TimeLimitExceeded",
}
BY_MILLPONDS_WORKER = {
    "shed": "FAILURE DeadLettered",
    "not accepted": "FAILURE DeadLettered",
    "unknown": "FAILURE DeadLettered",
}

TOML = """queues = ["default", "small"]
[queues.default]
max_deliveries = 2
unknown_kind_seconds = 1
[queues.small]
bound = 1
overflow = "shed"
"""


@pytest.fixture(params=[("app", "threads"), ("app", "prefork"), ("transport", "prefork")], ids="-".join)
def running(
    request: pytest.FixtureRequest, url: str, tmp_path: Path
) -> Iterator[tuple[Way, str, Application]]:
    way, pool = request.param
    env = {
        "ORDERS_BROKER": url.replace("redis://", "millpond://"),
        "ORDERS_BACKEND": url,
        "ORDERS_POOL": pool,
        "ORDERS_WAY": way,
    }
    path = [Path(__file__).parent]
    with application("orders", way, tmp_path, env=env, path=path, pool=pool, toml=TOML) as runs:
        yield way, pool, runs


def test_no_result_is_waited_for_in_vain(running: tuple[Way, str, Application]) -> None:
    """Revoked, cancelled, expired, shed, rejected or buried: `.get()` raises it, and that of a chord does."""
    way, pool, runs = running
    expected = dict(ENDED)
    if pool == "prefork":
        expected |= ON_PREFORK
    if way == "app":
        expected |= BY_MILLPONDS_WORKER
    assert json.loads(runs.python(PROGRAM)) == expected

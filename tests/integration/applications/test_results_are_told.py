"""However a task ends, its result backend hears of it: no `.get()` and no chord waits for ever."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from tests.applications.ways import Running, worker
from tests.conftest import Eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Send one of each, then wait for all: how each ended, by the class of its error.
PROGRAM = """
import json, os, time
from celery import chord
from celery.result import AsyncResult
from kombu import Connection
from millpond import Client
from millpond.broker import limits
from orders import app, add, die, endless, reject, sleep, total

whole = os.environ["APP_WAY"] == "app"
sent, chords = {}, {}
app.conf.broker_transport_options = {"queues": {"small": {"overflow": "shed"}}}
with Client(os.environ["APP_BROKER"]) as client:
    sent["revoked"] = add.apply_async((1, 1), countdown=3600)
    sent["cancelled"] = add.apply_async((1, 1), countdown=3600)
    header = [add.si(1, 1), add.si(1, 1).set(countdown=3600)]
    chords["of a cancelled one"] = chord(header)(total.s())
    busy = [sleep.delay(1.5) for _ in range(2)]
    sent["expired"] = add.apply_async((1, 1), expires=0.3)
    sent["rejected"] = reject.delay()
    sent["killed"] = die.delay()
    chords["of a killed one"] = chord([add.si(1, 1), die.si()])(total.s())
    sent["time limit"] = endless.delay()
    if whole:
        limits.change_limits(client.store, "small", paused=True)
        sent["shed"] = add.apply_async((1, 1), queue="small")
        add.apply_async((2, 2), queue="small")
        sent["not accepted"] = add.apply_async((1, 1), serializer="pickle")
        with Connection(os.environ["APP_RESULTS"]) as stock:
            undated = {"headers": {"eta": "tomorrow"}, "connection": stock}
            sent["due at no time"] = add.apply_async((1, 1), **undated)
        sent["unknown"] = app.send_task("orders.nothing")
    sent["revoked"].revoke()
    client.cancel(sent["cancelled"].id)
    client.cancel(chords["of a cancelled one"].parent.results[1].id)
ended = {}
for name, result in {**sent, **chords}.items():
    try:
        ended[name] = repr(result.get(timeout=60))
    except Exception as error:
        # A chord's is raised as soon as one of its parts is known to have failed.
        ended[name] = type(error).__name__ if name in chords else f"{result.state} {type(error).__name__}"
print(json.dumps(ended))
"""

ENDED = {
    "revoked": "REVOKED TaskRevokedError",
    "cancelled": "REVOKED TaskRevokedError",
    "of a cancelled one": "TaskRevokedError",
    "expired": "REVOKED TaskRevokedError",
    "rejected": "FAILURE Reject",
    "killed": "FAILURE WorkerLostError",
    "of a killed one": "WorkerLostError",
    "time limit": "FAILURE TimeLimitExceeded",
}
BY_MILLPONDS_WORKER = {
    "shed": "FAILURE DeadLettered",
    "not accepted": "FAILURE DeadLettered",
    "due at no time": "FAILURE DeadLettered",
    "unknown": "FAILURE DeadLettered",
}

#: How often the signal `task_failure` is sent by `millpond worker`, by task and error.
SIGNALLED = {
    b"orders.die WorkerLostError": b"2",
    b"orders.endless TimeLimitExceeded": b"1",
    b"orders.add DeadLettered": b"3",
}

#: The queues' settings for `millpond worker`.
QUEUES = {
    "MILLPOND_QUEUES__DEFAULT__MAX_DELIVERIES": "2",
    "MILLPOND_QUEUES__DEFAULT__UNKNOWN_KIND_SECONDS": "1",
    "MILLPOND_QUEUES__SMALL__BOUND": "1",
    "MILLPOND_QUEUES__SMALL__OVERFLOW": "shed",
}


@pytest.fixture(params=["app", "transport"])
def running(
    request: pytest.FixtureRequest, url: str, tmp_path: Path, eventually: Eventually
) -> Iterator[Running]:
    url = url.replace("redis://", "millpond://")
    more = {"APP_RESULTS": url.replace("millpond://", "redis://"), "APP_WAY": request.param, **QUEUES}
    paths, queues = [Path(__file__).parent], ("default", "small")
    with worker(
        request.param, "orders", url, tmp_path, eventually, paths=paths, queues=queues, more=more
    ) as runs:
        yield runs


def test_no_result_is_waited_for_in_vain(running: Running, eventually: Eventually) -> None:
    """`.get()` raises for a task revoked, cancelled, expired, shed, rejected or dead, and for its chord.

    A worker of Millpond sends `task_failure` for each that failed, once.
    """
    expected = ENDED | (BY_MILLPONDS_WORKER if running.way == "app" else {})
    assert json.loads(running.run(sys.executable, "-c", PROGRAM)) == expected
    if running.way == "app":
        with Redis.from_url(running.env["APP_RESULTS"]) as client:
            eventually(lambda: client.hgetall("failures") == SIGNALLED)

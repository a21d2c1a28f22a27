"""An application as Celery's tools see it under `millpond worker --app`, whose children are spawned."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.applications.ways import Running, worker
from tests.conftest import Eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

PROGRAM = """
import json, time
from datetime import UTC, datetime, timedelta
from orders import add, app, eta, sleep

def ask(question, *args):
    answers = getattr(app.control.inspect(timeout=10, limit=1), question)(*args)
    return next(iter((answers or {"": None}).values()))

def until(asked, seconds=30):
    end = time.monotonic() + seconds
    while not (found := asked()) and time.monotonic() < end:
        time.sleep(0.1)
    return found

said = {"value": add.delay(2, 2).get(60)}
when = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=123_456)
late = add.apply_async((1, 41), eta=when)
[found] = until(lambda: ask("scheduled"))
request = found["request"]
said["scheduled"] = [request["id"] == late.id, request["args"], found["eta"] == when.isoformat()]
said["delivery_info"] = request["delivery_info"]
said["queried"] = (ask("query_task", late.id) or {}).get(late.id, [None])[0]
busy = sleep.delay(3)
[found] = until(lambda: ask("active"))
said["active"] = [found["id"] == busy.id, found["args"]]
due = eta.apply_async(countdown=0.2)
said["eta"] = due.get(60)[:2]
print(json.dumps(said))
"""


@pytest.fixture
def running(url: str, tmp_path: Path, eventually: Eventually) -> Iterator[Running]:
    more, paths = {"APP_START": "spawn"}, [Path(__file__).parent]
    with worker(
        "app", "orders", url, tmp_path, eventually, paths=paths, queues=("default",), more=more
    ) as runs:
        yield runs


def test_tools_see_what_they_see_on_stock(running: Running) -> None:
    """`inspect` has delayed tasks and arguments as values; a task has its ETA; the log has "received"."""
    assert json.loads(running.run(sys.executable, "-c", PROGRAM)) == {
        "value": 4,
        "scheduled": [True, [1, 41], True],
        "delivery_info": {"exchange": "", "routing_key": "default", "priority": 0, "redelivered": False},
        "queried": "scheduled",
        "active": [True, [3]],
        "eta": "20",
    }
    assert "INFO/MainProcess] Task orders.add[" in running.log
    assert "] received" in running.log

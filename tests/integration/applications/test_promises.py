"""The table "Which promise holds in which way" of worker/your-application.md, tried on real workers."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.applications.ways import worker
from tests.conftest import Eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

PAGE = Path(__file__).parents[3] / "worker" / "your-application.md"

#: Try each promise by a client; a promise is named by its row.
PROGRAM = """
import json, os, subprocess, sys, time
from celery.exceptions import OperationalError, TimeoutError
from millpond import Client
from millpond.broker import limits
from millpond.broker.inspect.depth import read_depth
from millpond.broker.errors import QueueFull
from millpond.broker.stats import heartbeats
from orders import add, app, boom, die

expected = json.loads(sys.argv[1])

def seen(row, asked):
    "True once it is so; what is not to be expected is not waited for as long."
    end = time.monotonic() + (30 if expected[row] else 5)
    while not (found := asked()) and time.monotonic() < end:
        time.sleep(0.2)
    held[row] = bool(found)

held, client = {}, Client(os.environ["APP_RESULTS"])
store = client.store

limits.change_limits(store, "narrow", bound=1)
add.apply_async((1, 1), queue="narrow")
try:
    add.apply_async((1, 1), queue="narrow")
    held["a full queue refuses messages"] = False
except (QueueFull, OperationalError):
    held["a full queue refuses messages"] = True

late = add.apply_async((1, 1), countdown=600)
seen(
    "a delayed task waits in Redis, not in a worker's memory",
    lambda: store.client.zcard("millpond:{default}:delayed") == 1,
)
client.cancel(late.id)
seen(
    "a task that was cancelled while it waited is `REVOKED` in the result backend",
    lambda: late.state == "REVOKED",
)
unknown = app.send_task("orders.nothing")
time.sleep(1)
kept = lambda: read_depth(store, "default").dead + store.client.zcard("millpond:{default}:delayed")
seen("a task that the worker does not have is kept", kept)

before = read_depth(store, "default").dead
failed = boom.delay()
try:
    failed.get(30)
except ZeroDivisionError:
    pass
seen("a task that failed for good is a dead letter", lambda: read_depth(store, "default").dead > before)

with client.batch() as batch:
    batch.send_many([add.s(1, 1), boom.s()])
def counts():
    summary = batch.summary()
    return (summary.succeeded, summary.failed) == (1, 1)

seen("a batch counts how each of its tasks ended", counts)

held["`millpond status`, `why` and health checks know the worker"] = bool(heartbeats.read_processes(store))

row = "a task that keeps killing its child is buried, and its result says so"
killed = die.delay()
try:
    killed.get(30 if expected[row] else 5)
except Exception as error:
    told = type(error).__name__ == "WorkerLostError"
held[row] = told
app.control.revoke(killed.id)
print(json.dumps(held))
"""


def rows(column: int) -> dict[str, bool]:
    """Return the promises of the page by one of its columns of yes and no."""
    found = re.findall(r"^\| (.+?) \| (yes|no) \| (yes|no) \| (yes|no) \|$", PAGE.read_text(), re.MULTILINE)
    return {row[0]: row[column] == "yes" for row in found}


@pytest.mark.parametrize(("way", "column"), [("stock", 1), ("transport", 2), ("app", 3)])
def test_the_page_says_which_promises_hold(
    way: str, column: int, url: str, tmp_path: Path, eventually: Eventually
) -> None:
    """Each "yes" and each "no" of the page holds for a client."""
    broker = url if way == "stock" else url.replace("redis://", "millpond://")
    more = {"APP_RESULTS": url, "MILLPOND_QUEUES__DEFAULT__MAX_DELIVERIES": "3"}
    paths = [Path(__file__).parent]
    with worker(
        way, "orders", broker, tmp_path, eventually, paths=paths, queues=("default",), more=more
    ) as running:
        promises = rows(column)
        assert json.loads(running.run(sys.executable, "-c", PROGRAM, json.dumps(promises))) == promises

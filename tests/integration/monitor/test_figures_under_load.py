"""The figures of the pages under load, against two counts of our own: tasks sent and results received."""

import json
import re
from threading import Thread
from time import monotonic

import pytest

from millpond.broker.connection import connect
from millpond.broker.inspect.depth import read_depth
from millpond.broker.keys import batch_key
from millpond.broker.stats import heartbeats
from millpond.producer.client import Client
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import Embedded
from tests.conftest import Eventually
from tests.harness.counters import counters_at_the_end
from tests.harness.flower_process import LOGIN, Visitor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
POND = {"pools": ["default"], "flower": True, "settings": {"flower_basic_auth": (LOGIN,)}}
TASKS = 12_000
CHUNK = 500


def on_page(visitor: Visitor) -> dict[str, int]:
    """Return the counters that the page of the queue shows."""
    page = visitor.get("/queues/default").text
    found = re.findall(r'data-counter="(\w+)">\s*([\d,]+)', page)
    return {name: int(value.replace(",", "")) for name, value in found}


def test_figures_are_those_of_an_independent_count(pond: Embedded, eventually: Eventually) -> None:
    """While 12,000 tasks run, the figures are right within 2% and two seconds; afterwards they are exact."""
    ann, store = Visitor((pond.flower_url or "").rstrip("/")), connect(pond.url)
    sent: list[int] = [0]
    compared = 0
    with Client(pond.url) as client, client.batch("under load") as batch:

        def fill() -> None:
            for start in range(0, TASKS, CHUNK):
                batch.send_many(Square(n=n) for n in range(start, start + CHUNK))
                sent[0] += CHUNK

        sender = Thread(target=fill)
        sender.start()
        results = batch_key(batch.id) + ":results"
        done = 0
        while done < TASKS:
            before, ended_before, asked = sent[0], store.client.xlen(results), monotonic()
            shown = on_page(ann)
            after, done, seconds = sent[0], store.client.xlen(results), monotonic() - asked
            if seconds < 2:
                compared += 1
                assert before * 0.98 <= shown.get("published", 0) <= (after + CHUNK) * 1.02
                assert ended_before * 0.98 <= shown.get("settled", 0) <= done * 1.02
        sender.join()
    assert compared > 5
    shown = json.loads(ann.get("/api/millpond/queues/default").text)
    for counters in (shown["counters"], on_page(ann)):
        right = counters_at_the_end(read_depth(store, "default").counters, TASKS)
        assert {name: counters[name] for name in right} == right
    assert (shown["ready"], shown["in_flight"]) == (0, 0)

    def reported() -> bool:
        [totals] = heartbeats.read_totals(store, ["default"])
        return totals.count_ended("succeeded") == TASKS

    eventually(reported, 10)
    metrics = ann.get("/metrics").text
    labels = 'kind="squares.square",pool="default"'
    assert f'millpond_task_ended_total{{{labels},state="succeeded"}} {TASKS}.0' in metrics
    assert f"millpond_task_service_seconds_count{{{labels}}} {TASKS}.0" in metrics
    assert f"millpond_task_wait_seconds_count{{{labels}}} {TASKS}.0" in metrics
    store.close()

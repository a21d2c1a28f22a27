"""Beyond a rate a worker sends the events of a sample of tasks: whole tasks, and all that go wrong."""

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from millpond.monitor import snapshot
from millpond.monitor.json_views import pool_json
from millpond.monitor.metrics import metrics_text
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from millpond.worker.report.event_sampling import BURST_SECONDS
from tests.conftest import Eventually
from tests.harness.one_worker import settings_for, workers
from tests.harness.worker_events import hear_events, totals_after

TaskEvents = dict[str, list[dict[str, Any]]]

PER_SECOND, QUICK, FAILING = 2, 300, 3
WHOLE = ["task-received", "task-started", "task-succeeded"]


@pytest.fixture(params=["threads", pytest.param("prefork", marks=pytest.mark.slow)])
def settings(request: pytest.FixtureRequest, url: str, tmp_path: Path) -> Iterator[Settings]:
    chosen = settings_for(
        url, pool={"concurrency": 2, "executor": request.param}, task_events_per_second=PER_SECOND
    )
    with workers(chosen, tmp_path):
        yield chosen


@pytest.fixture
def task_events(settings: Settings, eventually: Eventually) -> Iterator[TaskEvents]:
    """Gather the events of each task, as Flower does, from the worker's next heartbeat on."""
    tasks: TaskEvents = defaultdict(list)

    def hear(event: dict[str, Any]) -> None:
        if event["type"].startswith("task-"):
            tasks[event["uuid"]].append(event)

    with hear_events(settings, hear, eventually):
        yield tasks


def test_a_sample_is_sent_and_all_that_goes_wrong(
    task_events: TaskEvents, settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    """A sampled task has all its events, in order, and so has a failed one; the others are counted."""
    from broker_kinds import Act

    file = str(tmp_path / "notes")
    with Client(settings=settings) as client:
        with client.batch() as batch:
            batch.send_many(Act(file=file) for _ in range(QUICK))
        assert batch.wait(timedelta(minutes=2)).succeeded == QUICK
        failed = [client.send(Act(file=file, what="fail")).id for _ in range(FAILING)]
        again = client.send(Act(file=file, what="retry")).id
        eventually(
            lambda: [_types(task_events[id])[-1:] for id in (*failed, again)] == [["task-failed"]] * 4, 20
        )
        ended = eventually(lambda: totals_after(client.store, QUICK + FAILING + 3), 20)
        view = next(
            v for v in snapshot.read_snapshot(client.store, settings.table).pools if v.name == "default"
        )
        text = metrics_text(snapshot.read_snapshot(client.store, settings.table)).decode()
    quick = [events for id, events in task_events.items() if id not in {*failed, again}]
    assert all(_types(events) == WHOLE for events in quick)
    assert PER_SECOND * BURST_SECONDS <= len(quick) < QUICK / 2
    assert all(_types(task_events[id]) == [*WHOLE[:2], "task-failed"] for id in failed)
    assert _types(task_events[again]) == [*WHOLE[:2], "task-retried"] * 2 + [*WHOLE[:2], "task-failed"]
    for events in task_events.values():
        times = [event["timestamp"] for event in events]
        assert times == sorted(times)
        assert events[0]["name"] == Act.kind
    assert (ended.left_out, ended.shown) == (QUICK - len(quick), len(quick) + FAILING + 3)
    assert f'millpond_task_events_skipped_total{{pool="default"}} {float(ended.left_out)}' in text
    assert set(pool_json(view)["events"]) == {"shown", "left_out"}


def _types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]

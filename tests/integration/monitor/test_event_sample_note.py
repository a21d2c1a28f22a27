"""Pages that list a sample of the tasks name it a sample."""

import json

from millpond.broker.connection import Store
from millpond.broker.stats import heartbeats, history
from millpond.broker.stats.heartbeats import Heartbeat
from tests.harness.flower_process import Visitor

REPORT = Heartbeat("sampled.1@here", "sampled", "here", 7, "threads", 5, 2, 3, 16, False, 12.0, ("default",))


def test_the_pools_page_says_how_large_the_sample_is(ann: Visitor, watched: Store) -> None:
    """The pools page counts shown and run tasks of the last minute; without a sample it has no note."""
    heartbeats.send_heartbeat(watched, REPORT, {"shown": 5_000, "left_out": 100})
    history.write_samples(watched)
    assert "shows a sample" not in ann.get("/pools").text
    heartbeats.send_heartbeat(watched, REPORT, {"shown": 1_200, "left_out": 34_000})
    page = ann.get("/pools").text
    assert "shows a sample: 1,200 of 35,200 tasks in the last minute" in page
    [told] = [pool for pool in json.loads(ann.get("/api/millpond/pools").text) if pool["pool"] == "sampled"]
    assert told["events"] == {"shown": 1_200, "left_out": 34_000}
    assert 'millpond_task_events_skipped_total{pool="sampled"} 34100.0' in ann.get("/metrics").text


def test_flowers_own_pages_of_tasks_look_for_it(ann: Visitor) -> None:
    """The list of tasks and that of workers have the script that asks how large the sample is."""
    for path in ("/tasks", "/workers"):
        page = ann.get(path).text
        assert 'data-from="/api/millpond/pools"' in page
        script = page.partition('src="/millpond/static/sample_note.js')[2].partition('"')[0]
        assert ann.get(f"/millpond/static/sample_note.js{script}").status == 200
    assert "millpond-sample" not in ann.get("/broker").text

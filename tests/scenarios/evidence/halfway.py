"""Cancel a batch half-way, while two processes run its tasks.

Each handler writes its start and its end to a file, by the clock of this host.
"""

import json
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

from millpond.producer.client import Client
from tests.scenarios.evidence.setting import server, settings, workers


def run(count: int, folder: Path) -> dict[str, Any]:
    """Run it with `count` tasks, and return the figures."""
    notes = folder / "notes"
    with server(folder) as url:
        chosen = settings(url, executor="threads", concurrency=4, prefetch=16)
        with workers(chosen, folder, count=2), Client(settings=chosen) as client:
            from broker_kinds import Act

            with client.batch("half-way") as batch:
                batch.send_many(Act(file=str(notes), name=str(n), seconds=0.002) for n in range(count))
            while batch.summary().succeeded < count // 2:
                time.sleep(0.01)
            asked = time.time()
            answer = batch.cancel()
            acknowledged = time.time()
            summary = batch.wait(timedelta(seconds=60))
    lines = [json.loads(line) for line in notes.read_text().splitlines()]
    started = {line["name"]: line["at"] for line in lines if line["when"] == "start"}
    finished = Counter(line["name"] for line in lines if line["when"] == "end")
    assert answer.unacknowledged == ()
    assert summary.complete
    assert max(started.values()) <= acknowledged, "a task started after the cancellation was acknowledged"
    assert set(started) == set(finished), "a task that had started did not finish"
    assert set(finished.values()) == {1}, "a task ran twice"
    assert summary.succeeded == len(started)
    assert summary.succeeded + summary.cancelled == summary.sent == count
    return {
        "tasks": count,
        "succeeded": summary.succeeded,
        "cancelled": summary.cancelled,
        "settled without being handed out": answer.settled,
        "last start before the acknowledgement, ms": round((acknowledged - max(started.values())) * 1000, 1),
        "acknowledged after, ms": round((acknowledged - asked) * 1000, 1),
    }

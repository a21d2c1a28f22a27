"""Middleware in a worker: it gets its start, stop and outcomes, and chooses events and log lines."""

import json
from pathlib import Path

import pytest

from millpond import Client
from tests.conftest import Eventually
from tests.harness.one_worker import settings_for, workers
from tests.harness.worker_events import totals_after

MODULE = """
import json, os
from millpond import Middleware

class Notes(Middleware):
    def note(self, *words):
        with open(os.environ["NOTES"], "a") as file:
            file.write(json.dumps(words) + "\\n")

    def on_worker_start(self):
        self.note("start")
        print("notes are taken")

    def shows_events(self, delivery):
        return False

    def log_fields(self, context):
        return {"tenant": "acme", "message": "not to be replaced"}

    def redact(self, line, context):
        return line.replace("bottleneck", "[cut]")

    @staticmethod
    def on_outcome(delivery, outcome, seconds):
        Notes().note(type(outcome).__name__, delivery.message.kind, seconds is not None)
        raise OSError("what a middleware raises here changes nothing")

    def on_worker_stop(self):
        self.note("stop")
"""


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_middleware_gets_outcomes_start_and_stop(
    executor: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """A middleware is called at the start, at each outcome with its time, and at the stop.

    Errors of a middleware are logged. A middleware chooses the events to send, and changes log lines.
    """
    (tmp_path / "notes_middleware.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    chosen = settings_for(
        url,
        pool={"executor": executor, "concurrency": 1},
        kinds=("bottleneck_kinds",),
        middleware=("notes_middleware:Notes",),
        log_format="json",
    )
    with workers(chosen, tmp_path) as (worker,):
        sender = chosen.model_copy(update={"middleware": ()})
        with Client(settings=sender) as client, client.batch() as batch:
            from bottleneck_kinds import Fail, Sleep

            batch.send(Sleep(seconds=0))
            batch.send(Fail(seconds=0))
            batch.close()
            assert sorted(result.state for result in batch.results()) == ["failed", "succeeded"]
            counted = eventually(lambda: totals_after(client.store, 2), 20)
            assert (counted.left_out, counted.shown) == (1, 1)  # a failure is shown in any case
        assert worker.stop(30) == 0
        log = worker.log
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    ends = [note for note in notes if len(note) > 1 and note[0] != "Release"]  # waited for a busy slot
    assert sorted(ends) == [["DeadLetter", "bottleneck.fail", True], ["Succeeded", "bottleneck.sleep", True]]
    assert notes[0] == ["start"]
    assert ["stop"] in notes
    assert "middleware Notes.on_outcome failed on an outcome" in log
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert "notes are taken" in [line["message"] for line in lines]
    assert "notes are taken" not in log.splitlines()
    (success,) = (line for line in lines if "succeeded" in line["message"])
    (failure,) = (line for line in lines if "raised unexpected" in line["message"])
    assert (
        (success["tenant"], success["batch"]) == (failure["tenant"], failure["batch"]) == ("acme", batch.id)
    )
    assert failure["kind"] == "bottleneck.fail"
    assert failure["message"].startswith("Task [cut].fail[")


PREPARING = """
import os
from pathlib import Path
from millpond import Middleware

WORKER = os.getpid()

class Preparing(Middleware):
    is_prepared = False

    def on_worker_start(self):
        if os.getpid() != WORKER:
            self.is_prepared = Path(os.environ["DATABASE"]).exists()
            if not self.is_prepared:
                raise OSError("the database is away")

    def around_executing(self, job, context, call_next):
        assert self.is_prepared
        return call_next(job, context)
"""


def test_no_task_runs_in_a_child_that_is_not_prepared(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """A child whose `on_worker_start` raises is replaced. The tasks wait for a child that is prepared."""
    (tmp_path / "preparing_middleware.py").write_text(PREPARING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("DATABASE", str(tmp_path / "database"))
    chosen = settings_for(
        url,
        pool={"executor": "prefork", "concurrency": 1},
        kinds=("bottleneck_kinds",),
        middleware=("preparing_middleware:Preparing",),
    )
    with workers(chosen, tmp_path) as (worker,):
        sender = chosen.model_copy(update={"middleware": ()})
        with Client(settings=sender) as client, client.batch() as batch:
            from bottleneck_kinds import Sleep

            batch.send_many(Sleep(seconds=0) for _ in range(5))
            batch.close()
            eventually(lambda: worker.log.count("Preparing.on_worker_start failed, so this process ends") > 1)
            (tmp_path / "database").touch()
            assert [result.state for result in batch.results()] == ["succeeded"] * 5
        assert worker.stop(30) == 0

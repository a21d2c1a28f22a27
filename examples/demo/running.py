"""Send the jobs, all of them at once, and follow the results of each as they come."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from examples.demo.view import View
from examples.demo.work import Job
from millpond.broker.batches.record import Result
from millpond.producer.batch import Batch
from millpond.producer.client import Client

REFRESH_SECONDS = 0.2
#: The jobs are sent in turns, a part of each, so that in a queue of several none waits for another to end.
PARTS = 20


@dataclass
class Run:
    """Follow one job: the tasks that ended so far, and the time they took."""

    job: Job
    batch: Batch
    done: int = 0
    failures: list[Result] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0
    error: BaseException | None = None

    @property
    def seconds(self) -> float:
        """Return the time from the first task sent to the last result."""
        return max(self.ended - self.started, 1e-6)

    @property
    def settled(self) -> int:
        """Count the tasks that have ended."""
        return self.done + len(self.failures)

    @property
    def unexpected(self) -> list[Result]:
        """Return the failures that are not part of the show."""
        meant = self.job.meant_to_fail
        return [each for each in self.failures if not any(word in (each.error or "") for word in meant)]

    def send(self, part: int) -> None:
        """Send one of `PARTS` parts of the job's tasks; with the last one, close: the workers finish."""
        self.started = self.ended = self.started or monotonic()
        self.batch.send_many(self.job.messages[part::PARTS])
        if part == PARTS - 1:
            self.batch.close()

    def follow(self) -> None:
        """Read results until all are there; an error is kept for the thread that waits."""
        try:
            for result in self.batch.results():
                if result.state == "succeeded":
                    self.done += 1
                else:
                    self.failures.append(result)
                self.ended = monotonic()
        except BaseException as error:
            self.error = error


def run_all(client: Client, jobs: Sequence[Job]) -> list[Run]:
    """Send all jobs, show how they go, and return when everything has ended."""
    runs = [Run(job, client.batch(job.name)) for job in jobs]
    followers = [threading.Thread(target=run.follow, name=run.job.name, daemon=True) for run in runs]
    with View(runs) as view:
        for part in range(PARTS):
            for run in runs:
                run.send(part)
        for follower in followers:
            follower.start()
        for run, follower in zip(runs, followers, strict=True):
            while follower.is_alive():
                follower.join(REFRESH_SECONDS)
                view.update()
            if run.error is not None:
                raise run.error
    return runs

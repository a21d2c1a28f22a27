"""Send all jobs at once, and count the results of each as they come."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic

from examples.demo.jobs import Job
from examples.demo.view import View
from millpond.broker.batches.record import Result
from millpond.producer.batch import Batch
from millpond.producer.client import Client

REFRESH_SECONDS = 0.2
#: Each job is sent in this many parts, in turns with the others, so that jobs of one queue run together.
PARTS = 20


@dataclass
class Run:
    """One run of a job: its batch, the results so far, and the time that it takes."""

    job: Job
    batch: Batch
    done: int = 0
    failures: list[Result] = field(default_factory=list)
    started: float = 0.0
    ended: float = 0.0
    error: BaseException | None = None

    @property
    def seconds(self) -> float:
        """The time from the first send to the last result, at least a microsecond."""
        return max(self.ended - self.started, 1e-6)

    @property
    def settled(self) -> int:
        """The number of tasks that have ended."""
        return self.done + len(self.failures)

    @property
    def unexpected(self) -> list[Result]:
        """The failures that the job does not intend."""
        words = self.job.meant_to_fail
        return [result for result in self.failures if not any(word in (result.error or "") for word in words)]

    def send(self, part: int) -> None:
        """Send one of `PARTS` parts of the tasks. Close the batch after the last one."""
        self.started = self.ended = self.started or monotonic()
        self.batch.send_many(self.job.messages[part::PARTS])
        if part == PARTS - 1:
            self.batch.close()

    def read_results(self) -> None:
        """Read results until the batch is complete. An error is kept in `error`. Runs in a thread."""
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
    """Send all jobs, show their progress, and return when all have ended. Raises the error of a reader."""
    runs = [Run(job, client.batch(job.name)) for job in jobs]
    readers = [threading.Thread(target=run.read_results, name=run.job.name, daemon=True) for run in runs]
    with View(runs) as view:
        for part in range(PARTS):
            for run in runs:
                run.send(part)
        for reader in readers:
            reader.start()
        for run, reader in zip(runs, readers, strict=True):
            while reader.is_alive():
                reader.join(REFRESH_SECONDS)
                view.update()
            if run.error is not None:
                raise run.error
    return runs

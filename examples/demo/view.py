"""Show how the jobs go: a bar each on a terminal, a line now and then elsewhere."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from examples.demo.running import Run

#: No three seconds pass in silence.
LINE_SECONDS = 2.0


@contextmanager
def patience(doing: str) -> Iterator[None]:
    """Print the present step now and then while the block lasts."""
    over = threading.Event()

    def remind() -> None:
        while not over.wait(LINE_SECONDS):
            print(f"  {doing} …", flush=True)

    thread = threading.Thread(target=remind, name="patience", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class View:
    """Show runs while the `with` block lasts, as often as `update` is called."""

    def __init__(self, runs: Sequence["Run"]) -> None:
        self._runs = runs
        self._told_at = monotonic()
        self._progress = _progress() if sys.stdout.isatty() else None

    def __enter__(self) -> Self:
        if self._progress is not None:
            for run in self._runs:
                self._progress.add_task(run.job.name, total=len(run.job.messages), failed="")
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self.update()
            self._progress.stop()
        elif error is None:
            self._line()

    def update(self) -> None:
        """Show the changes."""
        if self._progress is not None:
            for task, run in zip(self._progress.task_ids, self._runs, strict=True):
                failed = f"{len(run.failures)} failed" if run.failures else ""
                self._progress.update(task, completed=run.settled, failed=failed)
        elif monotonic() - self._told_at > LINE_SECONDS:
            self._line()

    def _line(self) -> None:
        self._told_at = monotonic()
        counts = (f"{run.job.name} {run.settled}/{len(run.job.messages)}" for run in self._runs)
        print("  " + ", ".join(counts), flush=True)


def _progress() -> Progress:
    return Progress(
        TextColumn("  {task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
        console=Console(),
    )

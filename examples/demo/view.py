"""Show the progress of the jobs: a bar for each on a terminal, otherwise a line every two seconds."""

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

#: The time between two lines.
LINE_SECONDS = 2.0


@contextmanager
def print_step(step: str) -> Iterator[None]:
    """Print the name of a step every two seconds while the block runs."""
    has_ended = threading.Event()

    def print_lines() -> None:
        while not has_ended.wait(LINE_SECONDS):
            print(f"  {step} …", flush=True)

    thread = threading.Thread(target=print_lines, name="step", daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()


class View:
    """Shows the progress of runs during a `with` block, whenever `update` is called."""

    def __init__(self, runs: Sequence["Run"]) -> None:
        self._runs = runs
        self._printed_at = monotonic()
        self._progress = _make_progress() if sys.stdout.isatty() else None

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
            self._print_counts()

    def update(self) -> None:
        """Redraw the bars, or print a line if the last one is old."""
        if self._progress is not None:
            for task, run in zip(self._progress.task_ids, self._runs, strict=True):
                failed = f"{len(run.failures)} failed" if run.failures else ""
                self._progress.update(task, completed=run.settled, failed=failed)
        elif monotonic() - self._printed_at > LINE_SECONDS:
            self._print_counts()

    def _print_counts(self) -> None:
        self._printed_at = monotonic()
        counts = (f"{run.job.name} {run.settled}/{len(run.job.messages)}" for run in self._runs)
        print("  " + ", ".join(counts), flush=True)


def _make_progress() -> Progress:
    return Progress(
        TextColumn("  {task.description:<18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
        console=Console(),
    )

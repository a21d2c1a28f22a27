"""Show a command's progress on stderr: a live bar on a terminal, only its messages elsewhere."""

import sys
import threading
from collections.abc import Callable
from typing import Any, Self

from millpond.producer.cli.counters import Counters
from millpond.producer.cli.failures import Failures

REFRESH_SECONDS = 0.2

#: Returns the expected number of inputs while they are still read, None if it is not known.
TotalEstimate = Callable[[Counters], int | None]


class ProgressBar:
    """Shows counters during a `with` block, and a summary of the failures at its end.

    On a terminal, a thread redraws a bar. Elsewhere there is none.
    """

    def __init__(self, counters: Counters, title: str, estimate_total: TotalEstimate | None = None) -> None:
        self._counters = counters
        self._title = title
        self._estimate_total = estimate_total
        self._failures = Failures()
        self._ended = threading.Event()
        self._bar: Any = None
        self._task: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = _make_bar()
            self._task = self._bar.add_task(self._title, total=None, rate=0.0, failed=0)
            self._bar.start()
            self._thread = threading.Thread(target=self._redraw_until_ended, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._update_counts()
            self._bar.stop()
        for line in self._failures.summary_lines():
            print(line, file=sys.stderr, flush=True)

    def print_above(self, text: str) -> None:
        """Print a line on stderr, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def print_failure(self, label: str, reason: str) -> None:
        """Print a failure, or only count it for the summary at the end if many were printed."""
        if line := self._failures.add_failure(label, reason):
            self.print_above(line)

    def _redraw_until_ended(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            self._update_counts()

    def _update_counts(self) -> None:
        """Show the present counts."""
        counters = self._counters
        failed = counters.failed + counters.skipped
        estimate = self._estimate_total
        total = estimate(counters) if counters.total is None and estimate else counters.total
        self._bar.update(self._task, completed=counters.done, total=total, rate=counters.rate, failed=failed)


def _make_bar() -> Any:
    """Return a bar of rich: description, count, rate, time left, failures."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]:,} failed"),
        console=Console(stderr=True),
        auto_refresh=True,
        refresh_per_second=5,
    )

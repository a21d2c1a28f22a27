"""Show on stderr how far a command is: a live bar on a terminal, nothing but its messages elsewhere."""

import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from millpond.producer.cli.counters import Count

REFRESH_SECONDS = 0.2

#: Failures told one by one; a machine that wants them all asks for --json.
TOLD_FAILURES = 20


#: Says how many there will be, as far as that can be said while inputs are still read.
Foresight = Callable[[Count], int | None]


class Progress:
    """Show a count while the `with` block runs, redrawn by a thread of its own."""

    def __init__(self, count: Count, what: str, foresee: Foresight | None = None) -> None:
        self._count = count
        self._what = what
        self._foresee = foresee
        self._told = 0
        self._over = threading.Event()
        self._bar: Any = None
        self._task: Any = None
        self._redrawing: threading.Thread | None = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bar = _bar()
            self._task = self._bar.add_task(self._what, total=None, rate=0.0, failed=0)
            self._bar.start()
            self._redrawing = threading.Thread(target=self._redraw, name="progress", daemon=True)
            self._redrawing.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._redrawing is not None:
            self._redrawing.join()
            self._update()
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def failure(self, label: str, reason: str) -> None:
        """Tell of a failure, unless so many were told that another one says nothing new."""
        self._told += 1
        if self._told <= TOLD_FAILURES:
            self.say(f"{label}: {reason}")
        elif self._told == TOLD_FAILURES + 1:
            self.say("… further failures are counted, not told: --json tells them all")

    def _redraw(self) -> None:
        while not self._over.wait(REFRESH_SECONDS):
            self._update()

    def _update(self) -> None:
        count = self._count
        failed = count.failed + count.left_out
        total = self._foresee(count) if count.total is None and self._foresee else count.total
        self._bar.update(self._task, completed=count.done, total=total, rate=count.rate, failed=failed)


def _bar() -> Any:
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

"""Write a command's results to stdout: lines for a person, or one JSON object a line for a machine.

Machines get an object for each task, `{"input", "id", "state", "value", "error"}`, and last `{"summary":
{...}}`.
"""

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from millpond.broker.batches.record import Result
from millpond.broker.task_state import TaskState
from millpond.producer.cli.counters import Count


class Output:
    """Write results; `line` makes what a person sees of a success (None: nothing, the summary is enough)."""

    def __init__(self, *, as_json: bool, line: Callable[[str, Any], str | None] | None = None) -> None:
        self._as_json = as_json
        self._line = line
        self._lock = threading.Lock()

    def result(self, label: str, result: Result) -> None:
        """Write how one task ended."""
        if self._as_json:
            self.object(
                {
                    "input": label,
                    "id": result.id,
                    "state": result.state,
                    "value": result.value,
                    "error": result.error,
                }
            )
        elif result.state is TaskState.SUCCEEDED and self._line is not None:
            text = self._line(label, result.value)
            if text is not None:
                self._write(text)

    def left_out(self, label: str, reason: str) -> None:
        """Write that an input was not sent; for a person that is told on stderr."""
        if self._as_json:
            self.object({"input": label, "id": None, "state": "left out", "value": None, "error": reason})

    def end(self, what: str, batch: str, count: Count) -> None:
        """Write the summary."""
        failed = count.failed + count.left_out
        if self._as_json:
            summary = {
                "batch": batch,
                "sent": count.sent,
                "succeeded": count.succeeded,
                "failed": count.failed,
                "left_out": count.left_out,
                "pending": count.pending,
                "seconds": round(count.seconds, 3),
                "rate": round(count.rate, 1),
            }
            self.object({"summary": summary})
            return
        pending = f", {count.pending:,} pending" if count.pending else ""
        text = f"{what}: {count.succeeded:,} succeeded, {failed:,} failed{pending}"
        print(f"{text} in {count.seconds:.1f} s ({count.rate:,.0f}/s)", file=sys.stderr)

    def object(self, value: dict[str, Any]) -> None:
        """Write one JSON object on a line of its own."""
        self._write(json.dumps(value))

    def _write(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)

"""Write a command's results to stdout: lines for people, or one JSON object a line for programs.

With `--json` there is an object for each input, `{"input", "id", "state", "value", "error"}`, and last
`{"summary": {...}}`. The state is a `TaskState`, or `skipped` for an input without a task.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

from millpond.broker.batches.record import Result
from millpond.broker.task_state import TaskState
from millpond.producer import json_text
from millpond.producer.cli.counters import Counters


class Output:
    """Writes the results of a command. Two threads may share it.

    `format_line` returns the line for people, from the label and the value of a task that succeeded. Without
    it, people see only failures and the summary, on stderr.
    """

    def __init__(self, *, as_json: bool, format_line: Callable[[str, Any], str] | None = None) -> None:
        self._as_json = as_json
        self._format_line = format_line
        self._lock = threading.Lock()

    def write_result(self, label: str, result: Result) -> None:
        """Write the result of one task: as JSON, or the line for people of a task that succeeded."""
        if self._as_json:
            self._write_object(label, result.id, result.state, value=result.value, error=result.error)
        elif result.state is TaskState.SUCCEEDED and self._format_line is not None:
            self._write_line(self._format_line(label, result.value))

    def write_skipped(self, label: str, reason: str) -> None:
        """Write an input without a task as JSON. For people, the progress bar prints it on stderr."""
        if self._as_json:
            self._write_object(label, None, "skipped", error=reason)

    def write_summary(self, title: str, batch_id: str, counters: Counters) -> None:
        """Write the counts of the whole command: as JSON to stdout, or as a line for people to stderr."""
        failed = counters.failed + counters.skipped
        if self._as_json:
            summary = {
                "batch": batch_id,
                "sent": counters.sent,
                "succeeded": counters.succeeded,
                "failed": counters.failed,
                "skipped": counters.skipped,
                "pending": counters.pending,
                "seconds": round(counters.seconds, 3),
                "rate": round(counters.rate, 1),
            }
            self._write_line(json_text.to_text({"summary": summary}))
            return
        pending = f", {counters.pending:,} pending" if counters.pending else ""
        text = f"{title}: {counters.succeeded:,} succeeded, {failed:,} failed{pending}"
        print(f"{text} in {counters.seconds:.1f} s ({counters.rate:,.0f}/s)", file=sys.stderr)

    def _write_object(
        self, label: str, id: str | None, state: str, *, value: Any = None, error: str | None = None
    ) -> None:
        """Write the result of one input as a JSON object on one line."""
        self._write_line(
            json_text.to_text({"input": label, "id": id, "state": state, "value": value, "error": error})
        )

    def _write_line(self, text: str) -> None:
        with self._lock:
            print(text, flush=True)

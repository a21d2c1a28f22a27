"""Send the tasks in the lines of a stream, and yield the outcome of each as a line.

It runs in a thread of its own: lines are validated and sent under backpressure, and each outcome is yielded
as soon as it is known.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import compress
from threading import Event
from typing import Any

from millpond.producer import json_text
from millpond.producer.client import Client
from millpond.producer.gateway.auth import check_kind_allowed, check_options_allowed
from millpond.producer.gateway.ndjson import Line
from millpond.producer.gateway.options import StreamTask
from millpond.producer.gateway.problems import (
    ApiError,
    batch_too_large_error,
    invalid_input_error,
    translate_error,
)
from millpond.producer.gateway.repeats import find_repeats
from millpond.producer.gateway.schemas import accepted_json
from millpond.producer.gateway.send_batcher import SendResult, send_each
from millpond.producer.gateway.tokens import Principal
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Refused, Sent
from millpond.tasks.contract import contract_of, validate_fields
from millpond.tasks.errors import BrokerAway, BrokerError, QueueFull
from millpond.tasks.pools import Overflow

#: A message with the number of its line.
_Numbered = tuple[int, Message]


@dataclass
class StreamCounts:
    """The lines of a stream by outcome."""

    accepted: int = 0
    duplicates: int = 0
    refused: int = 0


@dataclass
class StreamSender:
    """Sends the lines of one stream for one principal.

    `batch` is the id of the batch to send into, and `room` the number of tasks that it may still accept. Both
    are None outside of a batch. Under `block`, lines wait for room until none was accepted for
    `wait_seconds`. `longest_wait` bounds a single call. Setting `stop` ends all waits. `broker_away` is True
    once the broker could not be reached.
    """

    client: Client
    principal: Principal
    overflow: Overflow
    batch: str | None
    room: int | None
    wait_seconds: float
    longest_wait: timedelta
    traceparent: str | None = None
    counts: StreamCounts = field(default_factory=StreamCounts)
    stop: Event = field(default_factory=Event)
    broker_away: bool = False

    def send_lines(self, lines: Sequence[Line]) -> Iterator[bytes]:
        """Yield the outcome of each line, with its number. Those of lines that are not valid come first.

        A batch accepts as many tasks as it has room for. Then only repeats are sent, which take no room.
        """
        pending: list[_Numbered] = []
        for line in lines:
            try:
                pending.append((line.number, self._parse_line(line)))
            except Exception as error:
                yield self._refusal_line(line.number, translate_error(error))
        while pending and (room := self._remaining_room(len(pending))):
            yield from self._send_waiting(pending[:room])
            pending = pending[room:]
        if pending:
            yield from self._send_repeats(pending)

    def _remaining_room(self, count: int) -> int:
        """Return how many of `count` tasks the batch may still accept: all of them outside of a batch."""
        return count if self.room is None else min(count, max(0, self.room - self.counts.accepted))

    def _send_repeats(self, pending: Sequence[_Numbered]) -> Iterator[bytes]:
        """Send the messages for a full batch that repeat an accepted one, and refuse the others."""
        assert self.batch is not None
        refusal: Exception = batch_too_large_error(self.batch)
        try:
            are_repeats = find_repeats(self.client.store, [message for _, message in pending])
        except BrokerError as error:
            are_repeats, refusal = [False] * len(pending), error
        for (number, _), is_repeat in zip(pending, are_repeats, strict=True):
            if not is_repeat:
                yield self._outcome_line(number, refusal)
        yield from self._send_waiting(list(compress(pending, are_repeats)))

    def _send_waiting(self, pending: Sequence[_Numbered]) -> Iterator[bytes]:
        """Send messages, and yield the outcome of each.

        Those without room in their queue are sent again, in order, until they have waited too long.
        """
        give_up_at = time.monotonic() + self.wait_seconds
        while pending:
            refused: list[_Numbered] = []
            may_wait = time.monotonic() < give_up_at and not self.stop.is_set()
            for (number, message), result in zip(pending, self._send_each(pending), strict=True):
                if may_wait and self.overflow == "block" and _is_queue_full(result):
                    refused.append((number, message))
                else:
                    yield self._outcome_line(number, result)
            if len(refused) < len(pending):
                give_up_at = time.monotonic() + self.wait_seconds
            pending = refused

    def _send_each(self, pending: Sequence[_Numbered]) -> Iterator[SendResult]:
        """Send numbered messages with the options of the stream, and yield their outcomes in order."""
        timeout = min(self.longest_wait, timedelta(seconds=self.wait_seconds))
        return send_each(
            self.client,
            [message for _, message in pending],
            overflow=self.overflow,
            timeout=timedelta(0) if self.stop.is_set() else timeout,
            batch=self.batch,
        )

    def _parse_line(self, line: Line) -> Message:
        """Return the message of a line. Raises `ApiError` if it is not valid or not allowed."""
        if line.text is None:
            raise ApiError(413, "too_large", "the line is longer than a task may be")
        whole = "line"
        try:
            task = StreamTask.model_validate(json_text.parse_json(line.text))
            check_kind_allowed(self.principal, task.kind)
            check_options_allowed(self.principal, contract_of(task.kind), task, self.overflow)
            whole = "task"
            contract = validate_fields(contract_of(task.kind), task.task)
            json_text.require_finite(contract, line.text)
        except (ValueError, RecursionError) as error:
            raise invalid_input_error(error, subject=f"line {line.number}", whole=whole) from None
        return task.to_message(contract, self.traceparent, self.principal)

    def _outcome_line(self, line_number: int, result: SendResult) -> bytes:
        """Count an outcome, and return the line of the response for it. Sets `broker_away`."""
        if isinstance(result, Sent):
            self.counts.accepted += result.duplicate_of is None
            self.counts.duplicates += result.duplicate_of is not None
            return _encode_line({"line": line_number, **accepted_json(result)})
        self.broker_away = self.broker_away or isinstance(result, BrokerAway)
        error = result.error if isinstance(result, Refused) else result
        return self._refusal_line(line_number, translate_error(error, is_send=True))

    def _refusal_line(self, line_number: int, error: ApiError) -> bytes:
        """Count a refused line, and return the line of the response for it."""
        self.counts.refused += 1
        return _encode_line({"line": line_number, "status": error.status_code, **error.to_json()})


def _is_queue_full(result: SendResult) -> bool:
    return isinstance(result, Refused) and isinstance(result.error, QueueFull)


def _encode_line(value: dict[str, Any]) -> bytes:
    return json_text.to_text(value, separators=(",", ":")).encode() + b"\n"

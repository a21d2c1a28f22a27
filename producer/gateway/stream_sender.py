"""Send the tasks in the lines of a stream, and yield the outcome of each as a line.

It runs in a thread of its own: lines are validated and sent under backpressure, and each outcome is yielded
as soon as it is known.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from typing import Any

from pydantic import ValidationError

from millpond.producer import json_text
from millpond.producer.client import Client
from millpond.producer.gateway.auth import require_kind, require_options
from millpond.producer.gateway.ndjson import Line
from millpond.producer.gateway.options import StreamTask
from millpond.producer.gateway.problems import ApiError, api_error, invalid_fields, translate_error
from millpond.producer.gateway.schemas import accepted_json
from millpond.producer.gateway.send_batcher import SendResult, send_each
from millpond.producer.gateway.tokens import Principal
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Refused, Sent
from millpond.tasks.contract import contract_of, validate_fields
from millpond.tasks.errors import BrokerAway, QueueFull
from millpond.tasks.pools import Overflow


@dataclass
class StreamCounts:
    """The lines of a stream by outcome."""

    accepted: int = 0
    duplicates: int = 0
    refused: int = 0


class StreamSender:
    """Sends the lines of one stream for one principal.

    `room` is the number of tasks that the batch may still accept, None for any number. Under `block`, lines
    wait for room until none was accepted for `wait_seconds`. `longest_wait` bounds a single call. Setting
    `stop` ends all waits. `broker_away` is True once the broker could not be reached.
    """

    def __init__(
        self,
        client: Client,
        principal: Principal,
        *,
        overflow: Overflow,
        batch: str | None,
        room: int | None,
        wait_seconds: float,
        longest_wait: timedelta,
        traceparent: str | None = None,
    ) -> None:
        self._client = client
        self._principal = principal
        self._overflow = overflow
        self._batch = batch
        self._room = room
        self._wait_seconds = wait_seconds
        self._call_timeout = min(longest_wait, timedelta(seconds=wait_seconds))
        self._traceparent = traceparent
        self.counts = StreamCounts()
        self.stop = Event()
        self.broker_away = False

    def send_lines(self, lines: Sequence[Line]) -> Iterator[bytes]:
        """Yield the outcome of each line, with its number. Those of lines that are not valid come first.

        Lines without room in their queue are sent again, in order, until they have waited too long.
        """
        pending: list[tuple[int, Message]] = []
        for line in lines:
            try:
                self._check_room(len(pending))
                pending.append((line.number, self._parse_line(line)))
            except Exception as error:
                yield self._refusal_line(line.number, translate_error(error))
        give_up_at = time.monotonic() + self._wait_seconds
        while pending:
            refused: list[tuple[int, Message]] = []
            may_wait = time.monotonic() < give_up_at and not self.stop.is_set()
            for (number, message), result in zip(pending, self._send_each(pending), strict=True):
                if may_wait and self._overflow == "block" and _is_queue_full(result):
                    refused.append((number, message))
                else:
                    yield self._outcome_line(number, result)
            if len(refused) < len(pending):
                give_up_at = time.monotonic() + self._wait_seconds
            pending = refused

    def _send_each(self, pending: Sequence[tuple[int, Message]]) -> Iterator[SendResult]:
        """Send numbered messages with the options of the stream, and yield their outcomes in order."""
        return send_each(
            self._client,
            [message for _, message in pending],
            overflow=self._overflow,
            timeout=timedelta(0) if self.stop.is_set() else self._call_timeout,
            batch=self._batch,
        )

    def _check_room(self, pending: int) -> None:
        """Raise `ApiError` 413 if the batch has no room for one more task beside the pending ones."""
        if self._room is not None and self.counts.accepted + pending >= self._room:
            text = f"batch {self._batch} has as many tasks as a batch may have: open another"
            raise api_error(413, "batch_too_large", text)

    def _parse_line(self, line: Line) -> Message:
        """Return the message of a line. Raises `ApiError` if it is not valid or not allowed."""
        if line.text is None:
            raise api_error(413, "too_large", "the line is longer than a task may be")
        try:
            task = StreamTask.model_validate(json_text.parse_json(line.text))
            require_kind(self._principal, task.kind)
            require_options(self._principal, contract_of(task.kind), task, self._overflow)
            contract = validate_fields(contract_of(task.kind), task.task)
            json_text.require_finite(contract, line.text)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False)
            raise invalid_fields(errors, subject=f"line {line.number}") from None
        except (ValueError, RecursionError) as error:
            fault = {"loc": (), "msg": json_text.describe_fault("the line", error)}
            raise invalid_fields([fault], subject=f"line {line.number}") from None
        return task.to_message(contract, self._traceparent, self._principal)

    def _outcome_line(self, number: int, result: SendResult) -> bytes:
        """Count an outcome, and return the line of the response for it. Sets `broker_away`."""
        if isinstance(result, Sent):
            self.counts.accepted += result.duplicate_of is None
            self.counts.duplicates += result.duplicate_of is not None
            return _encode_line({"line": number, **accepted_json(result)})
        self.broker_away = self.broker_away or isinstance(result, BrokerAway)
        error = result.error if isinstance(result, Refused) else result
        return self._refusal_line(number, translate_error(error))

    def _refusal_line(self, number: int, error: ApiError) -> bytes:
        """Count a refused line, and return the line of the response for it."""
        self.counts.refused += 1
        return _encode_line({"line": number, "status": error.status_code, **error.to_json()})


def _is_queue_full(result: SendResult) -> bool:
    return isinstance(result, Refused) and isinstance(result.error, QueueFull)


def _encode_line(value: dict[str, Any]) -> bytes:
    return json_text.to_text(value, separators=(",", ":")).encode() + b"\n"

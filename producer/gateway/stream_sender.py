"""Send the lines of a stream and say what became of each, as lines.

Runs in a thread of its own: a line is checked, sent under backpressure, and its outcome made, in the order
in which outcomes are known.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from threading import Event
from typing import Any

from pydantic import ValidationError

from millpond.producer.client import Client
from millpond.producer.gateway.auth import must_send
from millpond.producer.gateway.ndjson import Raw
from millpond.producer.gateway.options import Line
from millpond.producer.gateway.problems import Refusal, bad_fields, explained, refusal
from millpond.producer.gateway.stream_outcomes import Carried, carry
from millpond.producer.gateway.tokens import Holder
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Refused, Sent
from millpond.tasks.contract import contract_of
from millpond.tasks.errors import BrokerAway, QueueFull
from millpond.tasks.pools import Overflow


@dataclass
class Counts:
    """Count the lines of a stream."""

    taken: int = 0
    duplicates: int = 0
    refused: int = 0


class Feed:
    """Send to one client for one holder; `stop` ends a wait for room."""

    def __init__(
        self,
        client: Client,
        asks: Holder,
        *,
        overflow: Overflow,
        batch: str | None,
        room: int | None,
        wait_seconds: float,
        longest_wait: timedelta,
        traceparent: str | None = None,
    ) -> None:
        self._client = client
        self._asks = asks
        self._overflow = overflow
        self._batch = batch
        self._room = room
        self._wait_seconds = wait_seconds
        self._at_a_time = min(longest_wait, timedelta(seconds=wait_seconds))
        self._traceparent = traceparent
        self.counts = Counts()
        self.stop = Event()
        self.away = False

    def outcomes(self, lines: Sequence[Raw]) -> Iterator[bytes]:
        """Yield a line for each line, which names it by its number."""
        waiting: list[tuple[int, Message]] = []
        for raw in lines:
            try:
                self._must_have_room(len(waiting))
                waiting.append((raw.number, self._message(raw)))
            except Exception as error:
                yield self._refused(raw.number, explained(error))
        give_up_at = time.monotonic() + self._wait_seconds
        while waiting:
            full: list[tuple[int, Message]] = []
            may_wait = time.monotonic() < give_up_at and not self.stop.is_set()
            for (number, message), outcome in zip(waiting, self._carry(waiting), strict=True):
                if may_wait and self._overflow == "block" and _is_full(outcome):
                    full.append((number, message))
                else:
                    yield self._line(number, outcome)
            if len(full) < len(waiting):
                give_up_at = time.monotonic() + self._wait_seconds
            waiting = full

    def _carry(self, waiting: Sequence[tuple[int, Message]]) -> Iterator[Carried]:
        messages = [message for _, message in waiting]
        return carry(
            self._client, messages, overflow=self._overflow, timeout=self._patience(), batch=self._batch
        )

    def _patience(self) -> timedelta:
        return timedelta(0) if self.stop.is_set() else self._at_a_time

    def _must_have_room(self, waiting: int) -> None:
        if self._room is not None and self.counts.taken + waiting >= self._room:
            text = f"batch {self._batch} holds as many tasks as one may: open another"
            raise refusal(413, "batch_too_large", text)

    def _message(self, raw: Raw) -> Message:
        if raw.text is None:
            raise refusal(413, "too_large", "the line is longer than a task may be")
        try:
            line = Line.model_validate_json(raw.text)
            must_send(self._asks, line.kind)
            contract = contract_of(line.kind).model_validate(line.task)
        except ValidationError as error:
            faults = error.errors(include_url=False, include_input=False)
            raise bad_fields(faults, what=f"line {raw.number}") from None
        return line.message(contract, self._traceparent)

    def _line(self, number: int, outcome: Carried) -> bytes:
        if isinstance(outcome, Sent):
            self.counts.taken += outcome.duplicate_of is None
            self.counts.duplicates += outcome.duplicate_of is not None
            return _encoded({"line": number, **accepted(outcome)})
        self.away = self.away or isinstance(outcome, BrokerAway)
        error = outcome.error if isinstance(outcome, Refused) else outcome
        return self._refused(number, explained(error))

    def _refused(self, number: int, why: Refusal) -> bytes:
        self.counts.refused += 1
        return _encoded({"line": number, "status": why.status_code, **why.content()})


def accepted(sent: Sent) -> dict[str, Any]:
    """Return what is said of a task that was taken, or that an earlier one stands for."""
    is_new = sent.duplicate_of is None
    return {"id": sent.duplicate_of or sent.id, "queue": sent.queue, "duplicate": not is_new}


def _is_full(outcome: Carried) -> bool:
    return isinstance(outcome, Refused) and isinstance(outcome.error, QueueFull)


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"

"""Send messages under the overflow policy `block`: the producer waits in line while a queue is full.

The publish script alone carries out `reject` and `shed`. Under `block` it puts the ticket of a refused
producer into the queue's line of admission. A script that makes room grants it to the first ticket, with a
number of messages, and so wakes its producer. A waiting producer does not poll. It only publishes again from
time to time, in case its ticket was lost.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from millpond.broker.admission import leave_line, new_ticket, wait_for_room
from millpond.broker.connection import Store
from millpond.broker.errors import BrokerError
from millpond.broker.outgoing import Outgoing
from millpond.broker.publish import Answer, Caller, Full, first_group, publish

Reply = TypeVar("Reply")

#: The most and the fewest messages that are composed and offered together.
LARGEST_CHUNK, SMALLEST_CHUNK = 1_000, 16

#: The range of the time after which a waiting producer publishes again, in case its ticket was lost.
CHECK_SECONDS = (15.0, 30.0)

#: The range of the pause before another try when a queue has its maximum of delayed messages: it has no line
#: for these.
DELAYED_SECONDS = (0.25, 0.5)


@dataclass
class FlowControl:
    """The state of a stream of messages from chunk to chunk.

    `queue_full`: a message was refused, so the producer offers the next one alone and waits in line with it.
    `chunk_size` is the number of messages to compose ahead: about twice the room of the last grant.
    """

    queue_full: bool = False
    chunk_size: int = LARGEST_CHUNK


@dataclass
class Timeout:
    """The longest time that a producer waits: `seconds` since a message was last accepted, None for ever."""

    seconds: float | None
    _ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Count the time from now again, because a message was accepted."""
        self._ends_at = float("inf") if self.seconds is None else time.monotonic() + self.seconds

    @property
    def seconds_left(self) -> float:
        """The seconds until the timeout, at least 0."""
        return max(0.0, self._ends_at - time.monotonic())


@dataclass(frozen=True)
class AdmissionLine:
    """Sends messages through the lines of their queues. `now_ms` returns the server's time."""

    store: Store
    now_ms: Callable[[], int]

    def send(self, messages: Sequence[Outgoing], timeout: Timeout, flow: FlowControl) -> list[Answer]:
        """Send the first of `messages`, which are of one queue. Wait in its line while there is no room.

        Return the broker's replies to the messages that were offered: to one if there was room at once, or to
        as many as were granted room. The list is empty at the timeout, and after a short pause if the queue
        has its maximum of delayed messages.
        """
        first, ticket = messages[0], new_ticket(len(messages))
        caller, is_in_line = Caller(ticket, stays=True), False
        try:
            while True:
                [answer] = publish(self.store, [first], policy="block", caller=caller)
                is_in_line = isinstance(answer, Full) and not answer.delayed
                if not isinstance(answer, Full):
                    flow.queue_full, flow.chunk_size = False, LARGEST_CHUNK
                    return [answer]
                if answer.delayed:
                    time.sleep(min(timeout.seconds_left, random.uniform(*DELAYED_SECONDS)))
                    return []
                room = wait_for_room(self.store, first.queue, ticket, self._seconds_to_check(first, timeout))
                if room:
                    flow.chunk_size = min(LARGEST_CHUNK, max(SMALLEST_CHUNK, 2 * room))
                    answers = publish(self.store, messages[:room], policy="block", caller=caller)
                    is_in_line = any(isinstance(answer, Full) for answer in answers)
                    if not isinstance(answers[0], Full):
                        return answers
                if not timeout.seconds_left:
                    return []
        finally:
            if is_in_line:
                with suppress(BrokerError):
                    leave_line(self.store, first.queue, ticket)

    def _seconds_to_check(self, message: Outgoing, timeout: Timeout) -> float:
        """Return the seconds after which to publish again, at most until the timeout or the deadline."""
        seconds = min(timeout.seconds_left, random.uniform(*CHECK_SECONDS))
        if message.deadline_ms is not None:
            seconds = min(seconds, max(0.0, (message.deadline_ms - self.now_ms()) / 1000))
        return seconds


def send_blocking(
    messages: Sequence[Outgoing], *, line: AdmissionLine, timeout_seconds: float | None, flow: FlowControl
) -> Iterator[Answer]:
    """Yield the broker's replies to the messages under `block`, in order, each as soon as it is known.

    Waits for room until no message was accepted for `timeout_seconds` (None: for ever). Then the remaining
    messages are offered once more, and the reply to those that do not fit is `Full`.
    """
    timeout = Timeout(timeout_seconds)

    def send(unsent: list[Outgoing]) -> Sequence[Answer | None]:
        """Send the first of some messages. Return a reply to each, None to one that has to wait for room."""
        timed_out = not timeout.seconds_left  # a refusal is final then
        if (flow.queue_full or len(unsent) == 1) and not timed_out:
            answers = line.send(first_group(unsent), timeout, flow)
        else:
            answers = publish(line.store, unsent, policy="block")
        refused = 0 if timed_out else sum(isinstance(answer, Full) for answer in answers)
        flow.queue_full = flow.queue_full or refused > 0
        if refused < len(answers):
            timeout.restart()
        return [None if isinstance(answer, Full) else answer for answer in answers] if refused else answers

    return send_in_order(messages, send)


def send_in_order(
    messages: Sequence[Outgoing], send: Callable[[list[Outgoing]], Iterable[Reply | None]]
) -> Iterator[Reply]:
    """Yield the final replies to the messages, in order, each as soon as it is known.

    `send` sends the first of some messages, and returns the replies to these: None to one to be sent again.
    """
    return chain.from_iterable(_final_replies(messages, send))


def _final_replies(
    messages: Sequence[Outgoing], send: Callable[[list[Outgoing]], Iterable[Reply | None]]
) -> Iterator[list[Reply]]:
    """Yield the next final replies after each call of `send`, none if the next one is not known yet."""
    replies, yielded = dict[int, Reply](), 0
    while yielded < len(messages):
        unsent = [i for i in range(yielded, len(messages)) if i not in replies]
        for i, reply in zip(unsent, send([messages[i] for i in unsent]), strict=False):
            if reply is not None:
                replies[i] = reply
        in_order = []
        while yielded in replies:
            in_order.append(replies.pop(yielded))
            yielded += 1
        yield in_order

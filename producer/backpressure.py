"""Offer messages to their queues under the overflow policy `block`: wait in line while there is no room.

`reject` and `shed` are decided by the publish script. For `block` the script gives a refused producer a place
in the line of admission, and the script that makes room calls the first producer in line with the number of
messages that it may send. A waiting producer does not poll. It only checks now and then that it still has its
place.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

from millpond.broker.admission import leave_line, new_ticket, wait_for_room
from millpond.broker.connection import Store
from millpond.broker.errors import BrokerError
from millpond.broker.message import Outgoing
from millpond.broker.publish import Answer, Caller, Full, first_group, publish

#: The most and the fewest messages that are composed and offered together.
LARGEST_CHUNK, SMALLEST_CHUNK = 1_000, 16

#: The range of the time after which a waiting producer checks that it still has its place in line.
CHECK_SECONDS = (15.0, 30.0)

#: The range of the pause before another try if no line forms: too many messages are delayed.
DELAYED_SECONDS = (0.25, 0.5)

#: Waits for room for a number of seconds. Returns the number of messages that may be sent, 0 at the timeout.
WaitForRoom = Callable[[Store, str, str, float], int]


@dataclass
class FlowControl:
    """The state of a stream of messages from chunk to chunk.

    `queue_full`: the queue was full, so that the next chunk begins with a single message. `chunk` is the
    number of messages to compose ahead: about twice the room of the last call.
    """

    queue_full: bool = False
    chunk: int = LARGEST_CHUNK

    def adapt_chunk(self, room: int) -> None:
        """Adapt the size of the next chunk to the room that a call found."""
        self.chunk = min(LARGEST_CHUNK, max(SMALLEST_CHUNK, 2 * room))

    def reset_chunk(self) -> None:
        """Return to full chunks, because a message did not have to wait."""
        self.queue_full, self.chunk = False, LARGEST_CHUNK


@dataclass
class Timeout:
    """The time that a producer waits: `seconds` since a message was last accepted, or for ever if None."""

    seconds: float | None
    _ends_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start again: a message was accepted."""
        self._ends_at = float("inf") if self.seconds is None else time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """The seconds that are left, at least 0."""
        return max(0.0, self._ends_at - time.monotonic())


@dataclass(frozen=True)
class AdmissionLine:
    """The line of one queue. `now_ms` returns the server's time."""

    store: Store
    now_ms: Callable[[], int]
    wait: WaitForRoom = wait_for_room

    def send(self, messages: Sequence[Outgoing], timeout: Timeout, flow: FlowControl) -> list[Answer]:
        """Send the first messages of one queue, as far as there is room, once it is this producer's turn.

        Return the outcomes. The list is empty at the timeout, and if another try is needed.
        """
        first, ticket = messages[0], new_ticket(len(messages))
        is_in_line = False
        try:
            while True:
                [answer] = self._publish_messages([first], Caller(ticket, stays=True))
                is_in_line = isinstance(answer, Full) and not answer.delayed
                if not isinstance(answer, Full):
                    flow.reset_chunk()
                    return [answer]
                if answer.delayed:
                    time.sleep(min(timeout.left, random.uniform(*DELAYED_SECONDS)))
                    return []
                room = self.wait(self.store, first.queue, ticket, self._wait_seconds(first, timeout))
                if room:
                    flow.adapt_chunk(room)
                    answers = self._publish_messages(messages[:room], Caller(ticket, stays=True))
                    is_in_line = any(isinstance(answer, Full) for answer in answers)
                    if not isinstance(answers[0], Full):
                        return answers  # refused ones among them join the end of the line
                if not timeout.left:
                    return []
        finally:
            if is_in_line:
                with suppress(BrokerError):
                    leave_line(self.store, first.queue, ticket)

    def _publish_messages(self, messages: Sequence[Outgoing], caller: Caller) -> list[Answer]:
        return publish(self.store, messages, policy="block", caller=caller)

    def _wait_seconds(self, message: Outgoing, timeout: Timeout) -> float:
        """Return the seconds until the next look at the place, at most until the timeout or the deadline."""
        seconds = min(timeout.left, random.uniform(*CHECK_SECONDS))
        if message.deadline_ms is not None:
            seconds = min(seconds, max(0.0, (message.deadline_ms - self.now_ms()) / 1000))
        return seconds


def send_blocking(
    messages: Sequence[Outgoing], *, line: AdmissionLine, timeout_seconds: float | None, flow: FlowControl
) -> Iterator[Answer]:
    """Return the outcomes of the messages, as they come under `block`, in order.

    Waits for room until no message was accepted for `timeout_seconds` (None: for ever). The outcome of every
    message that is left then is `Full`.
    """
    return chain.from_iterable(_send_in_order(messages, line, timeout_seconds, flow))


def _send_in_order(
    messages: Sequence[Outgoing], line: AdmissionLine, timeout_seconds: float | None, flow: FlowControl
) -> Iterator[list[Answer]]:
    """Yield the broker's replies for the messages in order, as soon as each is known."""
    timeout, replies, yielded = Timeout(timeout_seconds), dict[int, Answer](), 0
    while yielded < len(messages):
        open_ = [i for i in range(yielded, len(messages)) if i not in replies]
        is_last = not timeout.left
        if (flow.queue_full or len(open_) == 1) and not is_last:
            open_ = open_[: len(first_group([messages[i] for i in open_]))]
            answers = line.send([messages[i] for i in open_], timeout, flow)
        else:
            answers = publish(line.store, [messages[i] for i in open_], policy="block")
        decided = {i: a for i, a in zip(open_, answers, strict=False) if is_last or not isinstance(a, Full)}
        flow.queue_full = flow.queue_full or len(decided) < len(answers)
        replies.update(decided)
        if decided:
            timeout.restart()
        in_order = []
        while yielded in replies:
            in_order.append(replies.pop(yielded))
            yielded += 1
        yield in_order

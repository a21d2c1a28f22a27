"""Offer messages to their queues, and do what the policy says when there is no room.

`reject` and `shed` are decided by the publish script. `block` stands in the line here: the script gives a
refused producer a place, whoever makes room calls it, and it sends as many messages as it is told there is
room for. While it waits it asks nothing, but for a rare look whether its place is still its own.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from millpond.broker.admission import leave_line, new_ticket, wait_for_room
from millpond.broker.connection import Store
from millpond.broker.errors import BrokerError
from millpond.broker.message import Outgoing
from millpond.broker.publish import Caller, Full, Outcome, one_call, publish

#: Messages that are composed and offered together, at most and at least.
MOST_AT_ONCE, LEAST_AT_ONCE = 1_000, 16

#: How long a producer sleeps at most before it asks whether its place in the line is still its own.
LOOK_SECONDS = (15.0, 30.0)

#: The pause before asking again where no line forms: too many messages wait for their time.
DELAYED_SECONDS = (0.25, 0.5)

#: What ends a wait: room for so many messages, or the end of the time it may take.
Wait = Callable[[Store, str, str, float], int]


@dataclass
class Stream:
    """Remember, from chunk to chunk, that the queue was full: then a chunk begins with one message.

    `most` is how many messages are worth composing ahead: about twice what there was room for.
    """

    crowded: bool = False
    most: int = MOST_AT_ONCE

    def called(self, room: int) -> None:
        """Take note of how much room there was."""
        self.most = min(MOST_AT_ONCE, max(LEAST_AT_ONCE, 2 * room))

    def uncrowded(self) -> None:
        """Take note that nobody had to wait."""
        self.crowded, self.most = False, MOST_AT_ONCE


@dataclass
class Patience:
    """Know how long a producer goes on waiting: so many seconds since anything was taken (None: for ever)."""

    seconds: float | None
    _until: float = field(init=False)

    def __post_init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin again, for something was taken."""
        self._until = float("inf") if self.seconds is None else time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return max(0.0, self._until - time.monotonic())


@dataclass(frozen=True)
class Line:
    """Wait for room in one queue; `now_ms` tells the server's time."""

    store: Store
    now_ms: Callable[[], int]
    wait: Wait = wait_for_room

    def send(self, messages: Sequence[Outgoing], patience: Patience, stream: Stream) -> list[Outcome]:
        """Send messages of one queue as far as there is room once it is this producer's turn.

        Return what became of the first of them; empty when it is time to give up, or to ask again.
        """
        first, ticket = messages[0], new_ticket(len(messages))
        waits = False
        try:
            while True:
                [answer] = self._publish([first], Caller(ticket, stays=True))
                waits = isinstance(answer, Full) and not answer.delayed
                if not isinstance(answer, Full):
                    stream.uncrowded()
                    return [answer]
                if answer.delayed:
                    time.sleep(min(patience.left, random.uniform(*DELAYED_SECONDS)))
                    return []
                room = self.wait(self.store, first.queue, ticket, self._seconds(first, patience))
                if room:
                    stream.called(room)
                    answers = self._publish(messages[:room], Caller(ticket, stays=True))
                    waits = any(isinstance(answer, Full) for answer in answers)
                    if not isinstance(answers[0], Full):
                        return answers  # what was not taken after all waits anew, behind the others
                if not patience.left:
                    return []
        finally:
            if waits:
                with suppress(BrokerError):
                    leave_line(self.store, first.queue, ticket)

    def _publish(self, messages: Sequence[Outgoing], caller: Caller) -> list[Outcome]:
        return publish(self.store, messages, policy="block", caller=caller)

    def _seconds(self, message: Outgoing, patience: Patience) -> float:
        seconds = min(patience.left, random.uniform(*LOOK_SECONDS))
        if message.deadline_ms is not None:
            seconds = min(seconds, max(0.0, (message.deadline_ms - self.now_ms()) / 1000))
        return seconds


def offer(
    messages: Sequence[Outgoing], *, line: Line, timeout_seconds: float | None, stream: Stream
) -> Iterator[Outcome]:
    """Yield what became of each message under `block`, in order.

    Waits until there is room, or until nothing was taken for `timeout_seconds` (None: without end); what is
    left then is `Full`.
    """
    patience, known, yielded = Patience(timeout_seconds), dict[int, Outcome](), 0
    while yielded < len(messages):
        open_ = [i for i in range(yielded, len(messages)) if i not in known]
        is_last = not patience.left
        if (stream.crowded or len(open_) == 1) and not is_last:
            open_ = open_[: len(one_call([messages[i] for i in open_]))]
            answers = line.send([messages[i] for i in open_], patience, stream)
        else:
            answers = publish(line.store, [messages[i] for i in open_], policy="block")
        decided = {i: a for i, a in zip(open_, answers, strict=False) if is_last or not isinstance(a, Full)}
        stream.crowded = stream.crowded or len(decided) < len(answers)
        known.update(decided)
        if decided:
            patience.renew()
        while yielded in known:
            yield known.pop(yielded)
            yielded += 1

"""Send tasks at a steady rate from a thread, and record the outcome of each send."""

import secrets
import threading
from time import monotonic
from types import TracebackType
from typing import Self

from millpond import BrokerAway, Client, Settings
from millpond.broker.inspect import depth as inspect_depth
from tests.conftest import Eventually
from tests.kinds.host_kinds import Work

#: How long the producer waits for the broker before it records a task as unknown.
TIMEOUT_SECONDS = 5.0


class Load:
    """Sends `rate` tasks a second to the queues in turn, for the length of a `with` block.

    `taken` are the ids of accepted tasks. `unknown` are those of sends without a reply, which may have been
    accepted or not. A task holds its slot for `hold_seconds`.
    """

    def __init__(self, url: str, queues: tuple[str, ...], *, rate: float, hold_seconds: float) -> None:
        self.taken: set[str] = set()
        self.unknown: set[str] = set()
        self._client = Client(url, settings=Settings(broker_timeout_seconds=TIMEOUT_SECONDS))
        self._queues, self._rate, self._work = queues, rate, Work(hold_seconds=hold_seconds)
        self._name, self._stop = secrets.token_hex(4), threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def is_done(self) -> bool:
        """True if no task is ready, delayed or in flight. False while the broker is unreachable."""
        try:
            depths = [inspect_depth.read_depth(self._client.store, queue) for queue in self._queues]
        except BrokerAway:
            return False
        return all(depth.ready + depth.delayed + depth.in_flight == 0 for depth in depths)

    def finish(self, eventually: Eventually, timeout_seconds: float = 60) -> None:
        """Wait until the queues are empty, check that there is no dead letter, and close the client."""
        eventually(self.is_done, timeout_seconds, every_seconds=0.2)
        assert [inspect_depth.read_depth(self._client.store, queue).dead for queue in self._queues] == [
            0
        ] * len(self._queues)
        self._client.close()

    def _run(self) -> None:
        begun, number = monotonic(), 0
        while not self._stop.wait(max(0.0, begun + number / self._rate - monotonic())):
            task, queue = f"{self._name}-{number}", self._queues[number % len(self._queues)]
            number += 1
            try:
                self._client.send(self._work, queue=queue, id=task)
                self.taken.add(task)
            except BrokerAway:
                self.unknown.add(task)

"""Run one command's tasks as a batch: send as inputs come, follow results meanwhile, and say how it ended.

The main thread sends, so Ctrl-C stops just that; a second thread follows the batch. Neither holds more than
what is under way. SIGTERM stops the sending too, and waits for nothing.
"""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from millpond.broker.batches.record import Result
from millpond.broker.errors import BrokerError
from millpond.broker.task_state import TaskState
from millpond.producer.batch import Batch
from millpond.producer.cli.client_session import Session
from millpond.producer.cli.counters import Count
from millpond.producer.cli.exit_codes import FAILED, INTERRUPTED, TERMINATED
from millpond.producer.cli.output import Output
from millpond.producer.cli.progress import Foresight, Progress
from millpond.producer.cli.stall_hints import Watch
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Refused


@dataclass(frozen=True, slots=True)
class Job:
    """A message and what a person calls it: the path of its file, the address of its mail."""

    label: str
    message: Message


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An input that no task can be made of."""

    label: str
    reason: str


def run(
    session: Session,
    inputs: Iterable[Job | LeftOut],
    *,
    what: str,
    output: Output,
    foresee: Foresight | None = None,
) -> int:
    """Send a task for each input, wait for the results, and return the exit code.

    `what` names the work ("thumbnails"); `foresee` says how many inputs there will be, for the progress bar.
    """
    count = Count()
    batch = session.client.batch(description=what)
    with Progress(count, what, foresee) as progress, Watch(session, count, progress.say), _sigterm_stops():
        follower = Follower(batch, count, progress, output)
        follower.start()
        stop = _send(batch, inputs, follower)
        count.sent = batch.close().sent  # the server's count: an interrupted call may have been carried out
        count.total = count.sent + count.left_out
        stop = _wait(session, batch, follower, stop)
    output.end(what, batch.id, count)
    if stop is not None:
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    return FAILED if count.failed or count.left_out else 0


@contextmanager
def _sigterm_stops() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM in the main thread, which alone hears of signals."""

    def stop(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _send(batch: Batch, inputs: Iterable[Job | LeftOut], follower: "Follower") -> KeyboardInterrupt | None:
    """Send everything; return what stopped it. The batch is closed when an input breaks off."""
    try:
        for outcome in batch.send_each(follower.labelled(inputs), overflow="block"):
            if isinstance(outcome, Refused):
                raise outcome.error
            follower.count.gone()
    except KeyboardInterrupt as stop:
        return stop
    except Exception as error:
        with suppress(BrokerError):
            batch.close()
        if follower.count.sent:
            error.add_note(f"{follower.count.sent} tasks had been sent: millpond batch {batch.id}")
        raise
    return None


def _wait(
    session: Session, batch: Batch, follower: "Follower", stop: KeyboardInterrupt | None
) -> KeyboardInterrupt | None:
    """Wait for the results; Ctrl-C says what is under way, and again leaves, as SIGTERM does at once."""
    while True:
        try:
            if stop is not None:
                follower.progress.say(_under_way(session, batch, waits=not isinstance(stop, Terminated)))
            if isinstance(stop, Terminated):
                return stop
            # join() takes a thread for ended once Ctrl-C interrupted it (bpo-45274).
            follower.finished.wait()
            follower.raise_error()
            return stop
        except KeyboardInterrupt as again:
            if stop is not None:
                raise
            stop = again


def _under_way(session: Session, batch: Batch, *, waits: bool) -> str:
    said = f"stopped: nothing more is sent, {batch.summary().pending} tasks"
    if session.is_embedded and not waits:
        return f"{said} end with the workers of this command"
    said = f"{said} are pending in batch {batch.id}. "
    if session.is_embedded:
        return said + "Waiting for them; Ctrl-C again ends them with the workers of this command"
    leaves = "Ctrl-C again leaves them to the workers; look" if waits else "Look"
    return said + f"{leaves} at them with: millpond batch {batch.id}"


class Follower(threading.Thread):
    """Read the results of a batch as they come, and tell of each."""

    def __init__(self, batch: Batch, count: Count, progress: Progress, output: Output) -> None:
        super().__init__(name="results", daemon=True)
        self.count = count
        self.progress = progress
        self._batch = batch
        self._output = output
        self._error: BaseException | None = None
        self.finished = threading.Event()

    def run(self) -> None:
        """Follow until the batch is complete; an error is kept for the main thread."""
        try:
            for result in self._batch.results():
                self._tell(result)
        except BaseException as error:
            self._error = error
        finally:
            self.finished.set()

    def labelled(self, inputs: Iterable[Job | LeftOut]) -> Iterator[Message]:
        """Yield the messages, each with an id by which its result is known; stop when following failed."""
        for item in inputs:
            self.raise_error()
            if isinstance(item, LeftOut):
                self.count.left()
                self._output.left_out(item.label, item.reason)
                self.progress.failure(item.label, item.reason)
                continue
            message = item.message if item.message.id else replace(item.message, id=str(uuid4()))
            self.count.going(message.id or "", item.label)
            yield message

    def raise_error(self) -> None:
        """Raise what ended the following, in the thread that can end the command."""
        if self._error is not None:
            raise self._error

    def _tell(self, result: Result) -> None:
        label = self.count.settled(result)
        self._output.result(label, result)
        if result.state is not TaskState.SUCCEEDED:
            self.progress.failure(label, result.error or result.state)

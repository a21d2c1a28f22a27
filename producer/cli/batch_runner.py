"""Run the tasks of one command as a batch: send them as inputs are read, print results, return the exit code.

The main thread sends, so that Ctrl-C stops the sending only. A second thread reads the results. The memory of
both is bounded by the number of pending tasks. After SIGTERM the command neither sends nor waits for results.
"""

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from uuid import uuid4

from millpond.broker.batches.record import Result, Summary
from millpond.broker.errors import BrokerError
from millpond.broker.task_state import TaskState
from millpond.producer.batch import Batch
from millpond.producer.cli.client_session import Session
from millpond.producer.cli.counters import Counters
from millpond.producer.cli.exit_codes import FAILED, INTERRUPTED, TERMINATED
from millpond.producer.cli.output import Output
from millpond.producer.cli.progress import ProgressBar, TotalEstimate
from millpond.producer.cli.stall_hints import StallWatch
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Refused


@dataclass(frozen=True, slots=True)
class LabelledMessage:
    """A message and its label for people: the path of its file, the address of its mail."""

    label: str
    message: Message


@dataclass(frozen=True, slots=True)
class Skipped:
    """An input from which no task was made, and the reason."""

    label: str
    reason: str


class Terminated(KeyboardInterrupt):
    """SIGTERM was received."""


def run_batch(
    session: Session,
    inputs: Iterable[LabelledMessage | Skipped],
    *,
    title: str,
    output: Output,
    estimate_total: TotalEstimate | None = None,
) -> int:
    """Send a task for each input, wait for the results, and return the exit code.

    `title` names the work ("thumbnails"). `estimate_total` is for the progress bar.
    """
    counters = Counters()
    batch = session.client.batch(description=title)
    with (
        ProgressBar(counters, title, estimate_total) as progress,
        StallWatch(session, counters, progress.print_above),
        _raise_on_sigterm(),
    ):
        reader = ResultReader(batch, counters, progress, output)
        reader.start()
        interrupt = _send_inputs(batch, inputs, reader)
        summary, interrupt = _close_batch(batch, interrupt)
        # The task of an interrupted call is not counted here, and may have been accepted by the server.
        counters.sent = summary.sent
        counters.total = counters.sent + counters.skipped
        interrupt = _wait_for_results(session, batch, reader, interrupt)
    output.write_summary(title, batch.id, counters)
    if interrupt is not None:
        return TERMINATED if isinstance(interrupt, Terminated) else INTERRUPTED
    return FAILED if counters.failed or counters.skipped else 0


@contextmanager
def _raise_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM during the block. In another thread than the main one, do nothing.

    Only the main thread receives signals.
    """

    def raise_terminated(*_: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _send_inputs(
    batch: Batch, inputs: Iterable[LabelledMessage | Skipped], reader: "ResultReader"
) -> KeyboardInterrupt | None:
    """Send a task for each input. Return the interrupt that stopped the sending, or None.

    On any error, close the batch, add to the error how many tasks were sent, and raise it.
    """
    try:
        for answer in batch.send_each(reader.prepare_messages(inputs), overflow="block"):
            if isinstance(answer, Refused):
                raise answer.error
            reader.counters.sent += 1
    except KeyboardInterrupt as interrupt:
        return interrupt
    except Exception as error:
        with suppress(BrokerError):
            batch.close()
        if reader.counters.sent:
            error.add_note(f"{reader.counters.sent} tasks had been sent: millpond batch {batch.id}")
        raise
    return None


def _close_batch(
    batch: Batch, interrupt: KeyboardInterrupt | None
) -> tuple[Summary, KeyboardInterrupt | None]:
    """Close the batch. Return its summary, and the interrupt that has stopped the command by now, or None.

    A first Ctrl-C during the call does not keep the batch open, because its results are awaited. A second one
    is raised.
    """
    try:
        return batch.close(), interrupt
    except KeyboardInterrupt as now:
        if interrupt is not None:
            raise
        return batch.close(), now


def _wait_for_results(
    session: Session, batch: Batch, reader: "ResultReader", interrupt: KeyboardInterrupt | None
) -> KeyboardInterrupt | None:
    """Wait until all results were read. Return the interrupt that has stopped the command by now, or None.

    A first Ctrl-C prints the number of pending tasks, and the command waits on. A second one is raised. After
    SIGTERM nothing is awaited.
    """
    while True:
        try:
            if interrupt is not None:
                is_waiting = not isinstance(interrupt, Terminated)
                reader.progress.print_above(_describe_pending(session, batch, is_waiting=is_waiting))
            if isinstance(interrupt, Terminated):
                return interrupt
            # Not join(): once Ctrl-C has interrupted it, it returns although the thread runs (bpo-45274).
            reader.finished.wait()
            reader.raise_error()
            return interrupt
        except KeyboardInterrupt as now:
            if interrupt is not None:
                raise
            interrupt = now


def _describe_pending(session: Session, batch: Batch, *, is_waiting: bool) -> str:
    """Return the line that an interrupted command prints: the pending tasks, and the command to see them.

    `is_waiting`: the command waits for them until a second Ctrl-C.
    """
    text = f"stopped: nothing more is sent, {batch.summary().pending} tasks"
    if session.is_embedded and not is_waiting:
        return f"{text} end with the workers of this command"
    text = f"{text} are pending in batch {batch.id}. "
    if session.is_embedded:
        return text + "Waiting for them; Ctrl-C again ends them with the workers of this command"
    advice = "Ctrl-C again leaves them to the workers; look" if is_waiting else "Look"
    return text + f"{advice} at them with: millpond batch {batch.id}"


class ResultReader(threading.Thread):
    """A thread that reads the results of a batch as they come, and counts and prints each."""

    def __init__(self, batch: Batch, counters: Counters, progress: ProgressBar, output: Output) -> None:
        super().__init__(name="results", daemon=True)
        self.counters = counters
        self.progress = progress
        self._batch = batch
        self._output = output
        self._error: BaseException | None = None
        self.finished = threading.Event()

    def run(self) -> None:
        """Read until the batch is complete. An error is kept for `raise_error`, and sets `finished` too."""
        try:
            for result in self._batch.results():
                self._handle_result(result)
        except BaseException as error:
            self._error = error
        finally:
            self.finished.set()

    def prepare_messages(self, inputs: Iterable[LabelledMessage | Skipped]) -> Iterator[Message]:
        """Yield the messages to send, each with an id, under which its label is kept.

        Counts and prints the inputs that are skipped. Raises the error of the thread that reads results.
        """
        for item in inputs:
            self.raise_error()
            if isinstance(item, Skipped):
                self.counters.skipped += 1
                self._output.write_skipped(item.label, item.reason)
                self.progress.print_failure(item.label, item.reason)
                continue
            message = item.message if item.message.id else replace(item.message, id=str(uuid4()))
            self.counters.add_label(message.id or "", item.label)
            yield message

    def raise_error(self) -> None:
        """Raise the error that ended the reading, if there is one, in the calling thread."""
        if self._error is not None:
            raise self._error

    def _handle_result(self, result: Result) -> None:
        """Count a result, write it to the output, and print it if it is a failure."""
        label = self.counters.count_result(result)
        self._output.write_result(label, result)
        if result.state is not TaskState.SUCCEEDED:
            self.progress.print_failure(label, result.error or result.state)

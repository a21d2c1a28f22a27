"""Run the tasks of one command as a batch: send them as inputs are read, print results, return the exit code.

The main thread sends, so that Ctrl-C stops the sending only. A second thread reads the results. The memory of
both is bounded by the pending tasks. SIGTERM stops the sending too, and does not wait for results.
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
        stop = _send_inputs(batch, inputs, reader)
        # The server's count: the task of an interrupted call may have been accepted.
        closed, stop = _close_batch(batch, stop)
        counters.sent = closed.sent
        counters.total = counters.sent + counters.skipped
        stop = _wait_for_results(session, batch, reader, stop)
    output.write_summary(title, batch.id, counters)
    if stop is not None:
        return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
    return FAILED if counters.failed or counters.skipped else 0


@contextmanager
def _raise_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM, if this is the main thread, which alone receives signals."""

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


def _send_inputs(
    batch: Batch, inputs: Iterable[LabelledMessage | Skipped], reader: "ResultReader"
) -> KeyboardInterrupt | None:
    """Send every input and return the signal that stopped it, if any. Close the batch before an error."""
    try:
        for outcome in batch.send_each(reader.messages(inputs), overflow="block"):
            if isinstance(outcome, Refused):
                raise outcome.error
            reader.counters.count_sent()
    except KeyboardInterrupt as stop:
        return stop
    except Exception as error:
        with suppress(BrokerError):
            batch.close()
        if reader.counters.sent:
            error.add_note(f"{reader.counters.sent} tasks had been sent: millpond batch {batch.id}")
        raise
    return None


def _close_batch(batch: Batch, stop: KeyboardInterrupt | None) -> tuple[Summary, KeyboardInterrupt | None]:
    """Close the batch. Return its counts, and the signal that has stopped the command by then, or None.

    After a first Ctrl-C the batch is closed too, because its results are awaited. A second one leaves.
    """
    try:
        return batch.close(), stop
    except KeyboardInterrupt as interrupt:
        if stop is not None:
            raise
        return batch.close(), interrupt


def _wait_for_results(
    session: Session, batch: Batch, reader: "ResultReader", stop: KeyboardInterrupt | None
) -> KeyboardInterrupt | None:
    """Wait for the results: a first Ctrl-C prints the pending tasks, a second leaves, as SIGTERM does."""
    while True:
        try:
            if stop is not None:
                waits = not isinstance(stop, Terminated)
                reader.progress.print_above(_pending_text(session, batch, waits=waits))
            if isinstance(stop, Terminated):
                return stop
            # join() takes a thread for ended after an interruption by Ctrl-C (bpo-45274).
            reader.finished.wait()
            reader.raise_error()
            return stop
        except KeyboardInterrupt as again:
            if stop is not None:
                raise
            stop = again


def _pending_text(session: Session, batch: Batch, *, waits: bool) -> str:
    """Return the line that Ctrl-C prints: the number of pending tasks, and the batch to find them in."""
    text = f"stopped: nothing more is sent, {batch.summary().pending} tasks"
    if session.is_embedded and not waits:
        return f"{text} end with the workers of this command"
    text = f"{text} are pending in batch {batch.id}. "
    if session.is_embedded:
        return text + "Waiting for them; Ctrl-C again ends them with the workers of this command"
    leaves = "Ctrl-C again leaves them to the workers; look" if waits else "Look"
    return text + f"{leaves} at them with: millpond batch {batch.id}"


class ResultReader(threading.Thread):
    """Reads the results of a batch as they come, counts and prints each."""

    def __init__(self, batch: Batch, counters: Counters, progress: ProgressBar, output: Output) -> None:
        super().__init__(name="results", daemon=True)
        self.counters = counters
        self.progress = progress
        self._batch = batch
        self._output = output
        self._error: BaseException | None = None
        self.finished = threading.Event()

    def run(self) -> None:
        """Read until the batch is complete. Keep an error for the main thread."""
        try:
            for result in self._batch.results():
                self._handle_result(result)
        except BaseException as error:
            self._error = error
        finally:
            self.finished.set()

    def messages(self, inputs: Iterable[LabelledMessage | Skipped]) -> Iterator[Message]:
        """Yield the messages to send, each with an id. Count and print the inputs that are skipped.

        Raises the error of the thread that reads results.
        """
        for item in inputs:
            self.raise_error()
            if isinstance(item, Skipped):
                self.counters.count_skipped()
                self._output.write_skipped(item.label, item.reason)
                self.progress.print_failure(item.label, item.reason)
                continue
            message = item.message if item.message.id else replace(item.message, id=str(uuid4()))
            self.counters.add_label(message.id or "", item.label)
            yield message

    def raise_error(self) -> None:
        """Raise the error of the reader in the calling thread, if there is one."""
        if self._error is not None:
            raise self._error

    def _handle_result(self, result: Result) -> None:
        """Count a result and write it, and print a failure."""
        label = self.counters.count_result(result)
        self._output.write_result(label, result)
        if result.state is not TaskState.SUCCEEDED:
            self.progress.print_failure(label, result.error or result.state)

"""The running tasks of a batch, with the progress of each."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from millpond.broker.batches.progress import Progress, read_progress
from millpond.broker.connection import Store, translate_errors
from millpond.broker.control.acknowledgements import process_of
from millpond.broker.inspect.depth import read_declared_queues
from millpond.broker.keys import QueueKeys
from millpond.broker.message import BadMessage, Message


@dataclass(frozen=True)
class RunningTask:
    """A task in flight, the process that runs it or is about to, and its progress if it reported any."""

    id: str
    kind: str
    process: str
    progress: Progress | None


def find_running_tasks(store: Store, batch: str, *, limit: int = 50) -> list[RunningTask]:
    """Return at most `limit` tasks of a batch that are in flight, the tasks with progress first."""
    with translate_errors(f"looking for running tasks of batch {batch}"):
        in_flight = list(islice(_messages_in_flight(store, batch), limit))
    running = [
        RunningTask(message.id, message.kind, process, read_progress(store, message.id))
        for process, message in in_flight
    ]
    return sorted(running, key=lambda task: (task.progress is None, task.id))


def _messages_in_flight(store: Store, batch: str) -> Iterator[tuple[str, Message]]:
    """Yield each message of a batch that is in flight, with the name of the process that has it."""
    for queue in read_declared_queues(store):
        keys = QueueKeys(queue, store.prefix)
        for consumer in store.client.zrange(keys.consumers, 0, -1):
            name = consumer.decode()
            for text in store.client.hvals(keys.in_flight(name)):
                if batch.encode() in text:  # quicker than to decode every message
                    with suppress(BadMessage):
                        message = Message.decode(text)
                        if message.batch == batch:
                            yield process_of(name), message

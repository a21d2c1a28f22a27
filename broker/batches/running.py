"""The running tasks of a batch, with the progress of each."""

from dataclasses import dataclass

from millpond.broker.batches.progress import Progress, read_progress
from millpond.broker.connection import Store, translate_errors
from millpond.broker.control.acknowledgements import process_of
from millpond.broker.inspect.depth import read_declared_queues
from millpond.broker.keys import QueueKeys
from millpond.broker.message import Message


@dataclass(frozen=True)
class RunningTask:
    """A task in flight, the process that runs it or is about to, and its progress if it reported any."""

    id: str
    kind: str
    process: str
    progress: Progress | None


def find_running_tasks(store: Store, batch: str, *, limit: int = 50) -> list[RunningTask]:
    """Return at most `limit` tasks of a batch that are in flight, the tasks with progress first."""
    in_flight: list[tuple[str, Message]] = []
    with translate_errors(f"looking for running tasks of batch {batch}"):
        for queue in read_declared_queues(store):
            keys = QueueKeys(queue, store.prefix)
            for consumer in store.client.zrange(keys.consumers, 0, -1):
                name = consumer.decode()
                for message in store.client.hvals(keys.in_flight(name)):
                    if batch.encode() in message and len(in_flight) < limit:
                        in_flight.append((process_of(name), Message.decode(message)))
    running = [
        RunningTask(message.id, message.kind, process, read_progress(store, message.id))
        for process, message in in_flight
        if message.batch == batch
    ]
    return sorted(running, key=lambda task: (task.progress is None, task.id))

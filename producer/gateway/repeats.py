"""Find the repeats among messages: those with a unique key of a task that was accepted.

A repeat takes no room in a batch, so a batch that is full sends it, and its response is that of a duplicate.
"""

from collections.abc import Sequence

from millpond.broker.connection import Store
from millpond.broker.inspect.unique_keys import read_owners
from millpond.producer.celery_tasks import queue_of_call
from millpond.producer.message import Call, Message, contract_from


def find_repeats(store: Store, messages: Sequence[Message], app: str | None = None) -> list[bool]:
    """Return, for each message, True if a task has its unique key.

    `app` is the application that the settings name. Raises `BrokerError`, and the errors of its routes.
    """
    keys = [(_queue_of(message, app), message.once) for message in messages if message.once is not None]
    owners = iter(read_owners(store, keys))
    return [message.once is not None and next(owners) is not None for message in messages]


def _queue_of(message: Message, app: str | None) -> str:
    """Return the queue on which a message is sent."""
    if message.queue is not None:
        return message.queue
    if isinstance(message.contract, Call):
        return queue_of_call(message.contract, app)
    return contract_from(message.contract).queue

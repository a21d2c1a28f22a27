"""Delete a queue: its messages, its limits, and the keys that are not needed any more."""

from millpond.broker.connection import Store
from millpond.broker.inspect.purge import purge_queue
from millpond.broker.keys import QueueKeys, queues_key


def delete_queue(store: Store, queue: str) -> int:
    """Delete a queue's ready and delayed messages and its limits, and return the number of messages.

    Messages in flight are settled as before, and dead letters are kept. As long as there are any of these,
    the queue's counters are kept too.
    """
    purged = purge_queue(store, queue)
    with store.pipeline(f"deleting queue {queue!r}") as pipe:
        pipe.delete(QueueKeys(queue, store.prefix).limits).srem(queues_key(store.prefix), queue)
        pipe.execute()
    delete_if_unused(store, queue)
    return purged


def delete_if_unused(store: Store, queue: str) -> None:
    """Delete the counters and other figures of a queue that has no messages, consumers, limits or waiters."""
    keys = QueueKeys(queue, store.prefix)
    with store.pipeline(f"deleting unused keys of queue {queue!r}") as pipe:
        pipe.exists(*keys.ready, keys.delayed, keys.dead, keys.consumers, keys.limits, keys.waiters)
        pipe.sismember(queues_key(store.prefix), queue)
        if not any(pipe.execute()):
            store.client.delete(
                keys.counters, keys.wake, keys.drain_rate, keys.bucket, keys.deliveries, keys.kinds
            )

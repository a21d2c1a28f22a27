"""A channel's commands on a queue as a whole: its size, a purge, its deletion, its expiry.

kombu's Redis transport keeps a message with an `eta` among the ready ones, so such messages count in a
queue's size. Here they are delayed messages. So delayed messages count too, wherever kombu counts messages.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from kombu.transport import redis as stock

from millpond.broker.celery.connection import ConnectingChannel
from millpond.broker.connection import COPY_SHARE, Store
from millpond.broker.consume.fetcher import REPLY_TIMEOUT_SECONDS
from millpond.broker.inspect.delete import delete_queue
from millpond.broker.inspect.purge import purge_queue
from millpond.broker.keys import QueueKeys, queues_key, step_of

#: The maximum of messages that are moved from one list at once.
GATHERED_AT_ONCE = 1_000


class QueueCommandChannel(ConnectingChannel):
    """A channel's connection to the server, and the commands on whole queues."""

    #: Replicas that must have a message before a send returns.
    send_copies = 0
    #: The queues whose unused keys are deleted when this channel closes.
    queues_to_clean_up: set[str]

    @cached_property
    def store(self) -> Store:
        """The store for synchronous commands, on the connections of this channel."""
        client = stock.redis.Redis(connection_pool=self.pool)
        seconds = COPY_SHARE * (self.socket_timeout or REPLY_TIMEOUT_SECONDS)
        return Store(client, self.global_keyprefix, self.send_copies, seconds)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Yield the given client, or the one of this channel. kombu would create one for each command."""
        yield client or self._shared_client

    @cached_property
    def _shared_client(self) -> Any:
        return self._create_client()

    def queue_keys(self, queue: str) -> QueueKeys:
        """Return the keys of a queue."""
        return QueueKeys(queue, self.global_keyprefix)

    def holds_tasks(self, queue: str) -> bool:
        """True for a queue of tasks, False for a queue of remote control, which kombu handles."""
        return not (
            queue in self.active_fanout_queues or queue in self._fanout_queues or is_remote_control(queue)
        )

    # Priority steps

    def gather_messages(self, queue: str) -> int:
        """Move messages from the priority lists of the transport options to the ready lists. Wake a consumer.

        Return the number of messages.
        """
        keys, client, moved = self.queue_keys(queue), self.store.client, 0
        names = {step: self.global_keyprefix + self._q_for_pri(queue, step) for step in self.priority_steps}
        sources = [(step, name) for step, name in names.items() if name not in keys.ready]
        if not sources:
            return 0
        with client.pipeline(transaction=False) as pipe:
            for _step, source in sources:
                pipe.llen(source)
            counts = pipe.execute()
        for (step, source), count in zip(sources, counts, strict=True):
            if not count:
                continue
            with client.pipeline(transaction=False) as pipe:
                for _ in range(min(count, GATHERED_AT_ONCE)):
                    pipe.lmove(source, keys.ready[step_of(step)], "RIGHT", "LEFT")
                moved += sum(message is not None for message in pipe.execute())
        if moved and not client.llen(keys.wake):
            client.lpush(keys.wake, 1)
        return moved

    # Size

    def _size(self, queue: str) -> int:
        """Return the number of ready and delayed messages of a queue."""
        if not self.holds_tasks(queue):
            return int(super()._size(queue))
        self.gather_messages(queue)
        keys = self.queue_keys(queue)
        with self.store.client.pipeline(transaction=False) as pipe:
            for name in keys.ready:
                pipe.llen(name)
            pipe.zcard(keys.delayed)
            return sum(map(int, pipe.execute()))

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        """True if the queue has messages, or was declared by a worker."""
        if not self.holds_tasks(queue):
            return bool(super()._has_queue(queue, **kwargs))
        return self._size(queue) > 0 or bool(
            self.store.client.sismember(queues_key(self.global_keyprefix), queue)
        )

    # Deleting

    def _purge(self, queue: str) -> int:
        """Delete the waiting messages of a queue, and return their number."""
        if not self.holds_tasks(queue):
            return int(super()._purge(queue))
        self.gather_messages(queue)
        return purge_queue(self.store, queue)

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        """Delete a queue, bound or not, and its messages. Messages in flight are settled as before.

        With `if_unused` it is not deleted if a consumer has it. With `if_empty` it is not deleted if it has
        ready or delayed messages.
        """
        if self.holds_tasks(queue) and if_unused and self._has_consumer(queue):
            return
        super().queue_delete(queue, if_unused, if_empty, **kwargs)
        if self.holds_tasks(queue) and not (if_empty and self._size(queue)):
            self._delete_messages(queue)

    def after_reply_message_received(self, queue: str) -> None:
        """Delete the queue of a remote-control reply as kombu does: only if it is bound to an exchange."""
        super().queue_delete(queue)

    def _delete(self, queue: str, exchange: str, *args: Any, **kwargs: Any) -> None:
        """Delete a queue as kombu does, and the messages of a queue of tasks."""
        super()._delete(queue, exchange, *args, **kwargs)
        if self.holds_tasks(queue):
            self._delete_messages(queue)

    def _delete_messages(self, queue: str) -> None:
        """Delete the waiting messages of a queue and its limits. Its other keys are deleted when unused."""
        self.gather_messages(queue)
        delete_queue(self.store, queue)
        self._expires.pop(queue, None)
        self.queues_to_clean_up.add(queue)  # this channel's own lease on it may be the last

    def _has_consumer(self, queue: str) -> bool:
        """True if some consumer has a lease on the queue."""
        seconds, _micros = self.store.client.time()
        return bool(self.store.client.zcount(self.queue_keys(queue).consumers, seconds * 1000, "+inf"))

    # Expiry

    def restart_expiry(self, queue: str) -> None:
        """Restart the expiry of a queue that has `x-expires`. Its messages in flight do not expire."""
        milliseconds = self._expires.get(queue)
        if milliseconds is None:
            return
        with self.store.client.pipeline(transaction=False) as pipe:
            for name in self.queue_keys(queue).waiting:
                pipe.pexpire(name, milliseconds)
            pipe.execute()


def is_remote_control(queue: str) -> bool:
    """True if a queue is a mailbox or reply queue of kombu's, whose messages are not tasks."""
    return queue.endswith(".pidbox") or queue.startswith("celeryev.")

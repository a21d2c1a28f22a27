"""A channel's commands on a queue as a whole: its size, a purge, its deletion, its expiry.

A message with an `eta` waits beside the ready lists, while kombu's Redis transport keeps it in them. So
delayed messages count wherever kombu counts the messages of a queue.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from kombu.transport import redis as stock

from millpond.broker.celery.connection import Connecting
from millpond.broker.connection import COPY_SHARE, Store
from millpond.broker.consume.fetcher import REPLY_TIMEOUT_SECONDS
from millpond.broker.inspect.delete import delete_queue
from millpond.broker.inspect.purge import purge_queue
from millpond.broker.keys import PRIORITY_STEPS, SEPARATOR, QueueKeys, queues_key, step_of

#: The maximum of messages of one list that are moved at a time.
GATHERED_AT_ONCE = 1_000


class QueueCommands(Connecting):
    """A channel's connection to the server, and the commands on whole queues."""

    #: Replicas that must have a message before a send returns.
    send_copies = 0
    #: The queues of which no key is to be left when this channel closes.
    passing: set[str]

    @cached_property
    def store(self) -> Store:
        """The one client for synchronous commands. kombu would create a new one for each command."""
        client = stock.redis.Redis(connection_pool=self.pool)
        seconds = COPY_SHARE * (self.socket_timeout or REPLY_TIMEOUT_SECONDS)
        return Store(client, self.global_keyprefix, self.send_copies, seconds)

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """Yield the one client."""
        yield client or self._shared_client

    @cached_property
    def _shared_client(self) -> Any:
        return self._create_client()

    def queue_keys(self, queue: str) -> QueueKeys:
        """Return the keys of a queue."""
        return QueueKeys(queue, self.global_keyprefix)

    def holds_tasks(self, queue: str) -> bool:
        """True if a queue is Millpond's. Queues of remote control stay kombu's."""
        return not (
            queue in self.active_fanout_queues or queue in self._fanout_queues or is_remote_control(queue)
        )

    # Priority steps

    @cached_property
    def has_other_steps(self) -> bool:
        """True if the transport options name other priority lists than kombu's own four."""
        return tuple(self.priority_steps) != PRIORITY_STEPS or self.sep != SEPARATOR

    def gather(self, queue: str) -> int:
        """Move messages of stock clients with these priority steps to the lists that consumers read.

        Return the number of messages.
        """
        keys, client, moved = self.queue_keys(queue), self.store.client, 0
        for step in self.priority_steps:
            source = self.global_keyprefix + self._q_for_pri(queue, step)
            if source in keys.ready or not (count := client.llen(source)):
                continue
            with client.pipeline(transaction=False) as pipe:
                for _ in range(min(count, GATHERED_AT_ONCE)):
                    pipe.lmove(source, keys.ready[step_of(step)], "RIGHT", "LEFT")
                moved += sum(each is not None for each in pipe.execute())
        if moved and not client.llen(keys.wake):
            client.lpush(keys.wake, 1)
        return moved

    # Size

    def _size(self, queue: str) -> int:
        """Count the messages that are ready or delayed."""
        if not self.holds_tasks(queue):
            return int(super()._size(queue))
        if self.has_other_steps:
            self.gather(queue)
        keys = self.queue_keys(queue)
        with self.store.client.pipeline(transaction=False) as pipe:
            for name in keys.ready:
                pipe.llen(name)
            pipe.zcard(keys.delayed)
            return sum(int(each) for each in pipe.execute())

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
        if self.has_other_steps:
            self.gather(queue)
        return purge_queue(self.store, queue)

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        """Delete a queue, bound or not, and its messages. Messages in flight are settled as before.

        With `if_unused` not while a consumer has it, with `if_empty` not while it has a message, delayed ones
        included.
        """
        if self.holds_tasks(queue) and if_unused and self._has_consumer(queue):
            return
        super().queue_delete(queue, if_unused, if_empty, **kwargs)
        if self.holds_tasks(queue) and not (if_empty and self._size(queue)):
            self._delete_messages(queue)

    def after_reply_message_received(self, queue: str) -> None:
        """Delete the queue of a reply as kombu does: if it is bound to an exchange."""
        super().queue_delete(queue)

    def _delete(self, queue: str, exchange: str, *args: Any, **kwargs: Any) -> None:
        """Delete a queue as kombu does, and the messages of a queue of tasks."""
        super()._delete(queue, exchange, *args, **kwargs)
        if self.holds_tasks(queue):
            self._delete_messages(queue)

    def _delete_messages(self, queue: str) -> None:
        """Delete the waiting messages of a queue, and the rest of its keys when its last lease ends."""
        if self.has_other_steps:
            self.gather(queue)
        delete_queue(self.store, queue)
        self._expires.pop(queue, None)
        self.passing.add(queue)  # this channel's own lease on it may be the last

    def _has_consumer(self, queue: str) -> bool:
        """True if a lease on the queue has not expired."""
        seconds, _micros = self.store.client.time()
        return bool(self.store.client.zcount(self.queue_keys(queue).consumers, seconds * 1000, "+inf"))

    # Expiry

    def expire(self, queue: str) -> None:
        """Restart the expiry of a queue with `x-expires`. Its messages in flight do not expire."""
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

"""The names of all keys in Redis.

Ready messages are in the lists of stock Celery: the list named as the queue, and one more list for each
further priority step. All other keys of a queue begin with `millpond:{queue}:`.
"""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

#: kombu's priority steps, and its separator between a queue's name and the step. Step 0 is fetched first.
PRIORITY_STEPS = (0, 3, 6, 9)
SEPARATOR = "\x06\x16"

#: The number of processes that watch for messages of one queue.
WATCHERS = 2

#: The names that scripts use for the lists of waiting messages. The delayed ones come first, because a
#: delayed message moves to a ready list.
WAITING_LISTS = ("delayed", "1", "2", "3", "4")


def step_of(priority: int) -> int:
    """Return the index of the ready list of a priority (0 is fetched first, 9 last)."""
    return bisect_right(PRIORITY_STEPS, priority, lo=1) - 1


def _queue_key(name: str) -> "cached_property[str]":
    """Return an attribute of `QueueKeys`: a key of Millpond's own beside the ready lists of the queue."""

    def key(keys: "QueueKeys") -> str:
        return f"{keys.prefix}millpond:{{{keys.queue}}}:{name}"

    return cached_property(key)


@dataclass(frozen=True)
class QueueKeys:
    """The keys of one queue. Each begins with `prefix`."""

    queue: str
    prefix: str = ""

    #: The sorted set of delayed messages.
    delayed = _queue_key("delayed")
    #: The sorted set of kinds whose messages were put aside because no process has these kinds.
    aside = _queue_key("delayed:aside")
    #: The stream of dead letters.
    dead = _queue_key("dead")
    #: The list of ended messages whose result backend was not notified yet, the newest first.
    backend_notices = _queue_key("dead:untold")
    #: The sorted set of leases.
    consumers = _queue_key("consumers")
    #: The hash of the kinds that each consumer has.
    kinds = _queue_key("consumers:kinds")
    #: The hash of deliveries that were not settled: SHA-1 of a message -> their number.
    deliveries = _queue_key("deliveries")
    #: The hash of limits.
    limits = _queue_key("limits")
    #: The hash of counters.
    counters = _queue_key("counters")
    #: The list of wake tokens.
    wake = _queue_key("wake")
    #: The hashes of the messages in flight: this prefix, and the name of a consumer.
    in_flight_prefix = _queue_key("held:")
    #: The sorted set of producers that wait for admission.
    waiters = _queue_key("line")
    #: The unique keys: this prefix, and the name of a key.
    unique_prefix = _queue_key("once:")
    #: The hash of the measured drain rate.
    drain_rate = _queue_key("pace")
    #: The token bucket of the rate limit.
    bucket = _queue_key("bucket")

    @cached_property
    def ready(self) -> tuple[str, ...]:
        """The ready lists, one a priority step."""
        name = self.prefix + self.queue
        return tuple(f"{name}{SEPARATOR}{step}" if step else name for step in PRIORITY_STEPS)

    @cached_property
    def for_scripts(self) -> tuple[str, ...]:
        """The fifteen keys that every script takes, in the order of scripts/_queue.lua."""
        messages = (*self.ready, self.delayed, self.dead, self.consumers, self.deliveries)
        figures = (self.limits, self.counters, self.wake, self.in_flight_prefix)
        return (*messages, *figures, self.waiters, self.unique_prefix, self.drain_rate)

    @cached_property
    def waiting(self) -> tuple[str, ...]:
        """The lists and the set of the messages that wait: ready and delayed."""
        return (*self.ready, self.delayed)

    @cached_property
    def watcher_seats(self) -> tuple[str, ...]:
        """The seats of the processes that watch for messages: strings that name the process."""
        own = f"{self.prefix}millpond:{{{self.queue}}}"
        return tuple(f"{own}:lookout:{number}" for number in range(1, WATCHERS + 1))

    def in_flight(self, consumer: str) -> str:
        """The hash of the messages that a consumer has in flight."""
        return self.in_flight_prefix + consumer

    def grant_list(self, ticket: str) -> str:
        """The list on which a waiting producer receives its grant."""
        return f"{self.waiters}:room:{ticket}"


@lru_cache(maxsize=1_024)
def batch_key(batch: str | None, prefix: str = "") -> str:
    """The record of a batch, or "" without a batch. `…:results` is the stream of its results."""
    return f"{prefix}millpond:batch:{{{batch}}}" if batch else ""


def _key(name: str) -> Callable[[str], str]:
    """Return a function that returns this key with a prefix."""
    return lambda prefix: f"{prefix}millpond:{name}"


def _named_key(start: str, end: str = "") -> Callable[[str, str], str]:
    """Return a function that returns a key with a name between `start` and `end`, and with a prefix."""
    return lambda name, prefix: f"{prefix}millpond:{start}{name}{end}"


#: The sorted set of batches by the time they were opened.
batches_key = _key("batches")
#: The sorted set of the batches of one gateway token, by the time they were opened.
batches_of_key = _named_key("batches:of:")
#: The set of all queues that were declared.
queues_key = _key("queues")
#: The sorted set of cancelled tasks and batches.
cancelled_key = _key("cancelled")
#: The list of the latest cancellations, each with its control epoch.
cancellations_key = _key("cancelled:latest")
#: The sorted set of cancelled tasks and batches whose running tasks are terminated too.
terminated_key = _key("cancelled:terminated")
#: The hash of drained pools: pool to the time it was drained (ms).
drained_key = _key("drained")
#: The hash of worker processes: process to the last control epoch that it acknowledged.
known_epochs_key = _key("cancelled:known")
#: The control epoch, which each cancellation and drain raises, and the channel that announces it.
epoch_key = _key("cancelled:epoch")
#: The sorted set of worker processes by their last heartbeat.
processes_key = _key("processes")
#: The last heartbeat of a worker process.
process_key = _named_key("process:")
#: The set of all pools that sent a heartbeat.
pools_key = _key("pools")
#: The hash of a pool's totals since it was first used.
pool_totals_key = _named_key("pool:", ":totals")
#: The last measured elasticity of a pool.
elasticity_key = _named_key("pool:", ":elasticity")
#: The last measured elasticity of a pool when it had other slots.
earlier_elasticity_key = _named_key("pool:", ":elasticity:earlier")
#: The lock of the process that probes a pool.
probe_lock_key = _named_key("pool:", ":probing")
#: The cost of a pool's probes in this hour, in seconds of its throughput.
probe_cost_key = _named_key("pool:", ":probed")
#: The prefix of a pool's windows. The number of the window follows: ten seconds each, from 1970 on.
window_key = _named_key("pool:", ":window:")
#: The stream of a pool's last day.
day_key = _named_key("pool:", ":day")
#: The figures of a pool's kinds by the hour.
hours_key = _named_key("pool:", ":day:hours")
#: The lock of the process that writes the next entries of the day.
folding_key = _key("folding")
#: The history stream of `queue:<name>` or `pool:<name>`.
samples_key = _named_key("samples:")
#: The lock of the process that writes the next samples.
sampling_key = _key("sampling")
#: A key that never exists. Writing no bytes to it shows whether the server accepts writes.
writing_key = _key("writing")
#: The stream of the audit.
audit_key = _key("audit")
#: The set of schedules.
schedules_key = _key("schedules")
#: The hash of a schedule's state.
schedule_key = _named_key("schedule:")
#: The lease of the leading scheduler.
scheduler_key = _key("scheduler")

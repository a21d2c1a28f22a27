"""The names of all keys in Redis.

Ready messages are in the lists of stock Celery: the list named as the queue, and one more list for each
further priority step. All other keys of a queue begin with `millpond:{queue}:`.
"""

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
    return sum(priority >= step for step in PRIORITY_STEPS[1:])


@dataclass(frozen=True)
class QueueKeys:
    """The keys of one queue. Each begins with `prefix`."""

    queue: str
    prefix: str = ""

    def _own(self, name: str) -> str:
        """Return a key of Millpond's own beside the ready lists of the queue."""
        return f"{self.prefix}millpond:{{{self.queue}}}:{name}"

    @cached_property
    def ready(self) -> tuple[str, ...]:
        """The ready lists, one a priority step."""
        name = self.prefix + self.queue
        return tuple(f"{name}{SEPARATOR}{step}" if step else name for step in PRIORITY_STEPS)

    @cached_property
    def for_scripts(self) -> tuple[str, ...]:
        """The fifteen keys that every script takes, in the order of scripts/_queue.lua."""
        beside = ("delayed", "dead", "consumers", "deliveries", "limits", "counters", "wake", "held:")
        return (*self.ready, *map(self._own, (*beside, "line", "once:", "pace")))

    @cached_property
    def waiting(self) -> tuple[str, ...]:
        """The lists and the set of the messages that wait: ready and delayed."""
        return (*self.ready, self.delayed)

    @cached_property
    def bucket(self) -> str:
        """The token bucket of the rate limit."""
        return self._own("bucket")

    @cached_property
    def dead(self) -> str:
        """The stream of dead letters."""
        return self._own("dead")

    @cached_property
    def backend_notices(self) -> str:
        """The list of ended messages whose result backend was not notified yet, the newest first."""
        return f"{self.dead}:untold"

    @cached_property
    def delayed(self) -> str:
        """The sorted set of delayed messages."""
        return self._own("delayed")

    @cached_property
    def aside(self) -> str:
        """The sorted set of kinds whose messages were put aside because no process has these kinds."""
        return f"{self.delayed}:aside"

    @cached_property
    def consumers(self) -> str:
        """The sorted set of leases."""
        return self._own("consumers")

    @cached_property
    def deliveries(self) -> str:
        """The hash of deliveries that were not settled: SHA-1 of a message -> their number."""
        return self._own("deliveries")

    @cached_property
    def kinds(self) -> str:
        """The hash of the kinds that each consumer has."""
        return f"{self.consumers}:kinds"

    @cached_property
    def limits(self) -> str:
        """The hash of limits."""
        return self._own("limits")

    @cached_property
    def counters(self) -> str:
        """The hash of counters."""
        return self._own("counters")

    @cached_property
    def wake(self) -> str:
        """The list of wake tokens."""
        return self._own("wake")

    @cached_property
    def watcher_seats(self) -> tuple[str, ...]:
        """The seats of the processes that watch for messages: strings that name the process."""
        return tuple(self._own(f"lookout:{number}") for number in range(1, WATCHERS + 1))

    def in_flight(self, consumer: str) -> str:
        """The hash of the messages that a consumer has in flight."""
        return self._own("held:") + consumer

    @cached_property
    def waiters(self) -> str:
        """The sorted set of producers that wait for admission."""
        return self._own("line")

    def grant_list(self, ticket: str) -> str:
        """The list on which a waiting producer receives its grant."""
        return self._own("line:room:") + ticket

    @cached_property
    def drain_rate(self) -> str:
        """The hash of the measured drain rate."""
        return self._own("pace")


@lru_cache(maxsize=1_024)
def batch_key(batch: str | None, prefix: str = "") -> str:
    """The record of a batch, or "" without a batch. `…:results` is the stream of its results."""
    return f"{prefix}millpond:batch:{{{batch}}}" if batch else ""


def batches_key(prefix: str = "") -> str:
    """The sorted set of batches by the time they were opened."""
    return f"{prefix}millpond:batches"


def batches_of_key(owner: str, prefix: str = "") -> str:
    """The sorted set of the batches of one gateway token, by the time they were opened."""
    return f"{prefix}millpond:batches:of:{owner}"


def queues_key(prefix: str = "") -> str:
    """The set of all queues that were declared."""
    return f"{prefix}millpond:queues"


def cancelled_key(prefix: str = "") -> str:
    """The sorted set of cancelled tasks and batches."""
    return f"{prefix}millpond:cancelled"


def cancellations_key(prefix: str = "") -> str:
    """The list of the latest cancellations, each with its control epoch."""
    return f"{prefix}millpond:cancelled:latest"


def terminated_key(prefix: str = "") -> str:
    """The sorted set of cancelled tasks and batches whose running tasks are terminated too."""
    return f"{prefix}millpond:cancelled:terminated"


def drained_key(prefix: str = "") -> str:
    """The hash of drained pools: pool to the time it was drained (ms)."""
    return f"{prefix}millpond:drained"


def known_epochs_key(prefix: str = "") -> str:
    """The hash of worker processes: process to the last control epoch that it acknowledged."""
    return f"{prefix}millpond:cancelled:known"


def epoch_key(prefix: str = "") -> str:
    """The control epoch, which each cancellation and drain raises, and the channel that announces it."""
    return f"{prefix}millpond:cancelled:epoch"


def processes_key(prefix: str = "") -> str:
    """The sorted set of worker processes by their last heartbeat."""
    return f"{prefix}millpond:processes"


def process_key(process: str, prefix: str = "") -> str:
    """The last heartbeat of a worker process."""
    return f"{prefix}millpond:process:{process}"


def pools_key(prefix: str = "") -> str:
    """The set of all pools that sent a heartbeat."""
    return f"{prefix}millpond:pools"


def pool_totals_key(pool: str, prefix: str = "") -> str:
    """The hash of a pool's totals since it was first used."""
    return f"{prefix}millpond:pool:{pool}:totals"


def elasticity_key(pool: str, prefix: str = "") -> str:
    """The last measured elasticity of a pool."""
    return f"{prefix}millpond:pool:{pool}:elasticity"


def earlier_elasticity_key(pool: str, prefix: str = "") -> str:
    """The last measured elasticity of a pool when it had other slots."""
    return f"{prefix}millpond:pool:{pool}:elasticity:earlier"


def probe_lock_key(pool: str, prefix: str = "") -> str:
    """The lock of the process that probes a pool."""
    return f"{prefix}millpond:pool:{pool}:probing"


def probe_cost_key(pool: str, prefix: str = "") -> str:
    """The cost of a pool's probes in this hour, in seconds of its throughput."""
    return f"{prefix}millpond:pool:{pool}:probed"


def window_key(pool: str, prefix: str = "") -> str:
    """The prefix of a pool's windows. The number of the window follows: ten seconds each, from 1970 on."""
    return f"{prefix}millpond:pool:{pool}:window:"


def day_key(pool: str, prefix: str = "") -> str:
    """The stream of a pool's last day."""
    return f"{prefix}millpond:pool:{pool}:day"


def hours_key(pool: str, prefix: str = "") -> str:
    """The figures of a pool's kinds by the hour."""
    return f"{day_key(pool, prefix)}:hours"


def folding_key(prefix: str = "") -> str:
    """The lock of the process that writes the next entries of the day."""
    return f"{prefix}millpond:folding"


def samples_key(name: str, prefix: str = "") -> str:
    """The history stream of `queue:<name>` or `pool:<name>`."""
    return f"{prefix}millpond:samples:{name}"


def sampling_key(prefix: str = "") -> str:
    """The lock of the process that writes the next samples."""
    return f"{prefix}millpond:sampling"


def writing_key(prefix: str = "") -> str:
    """A key that never exists. Writing no bytes to it shows whether the server accepts writes."""
    return f"{prefix}millpond:writing"


def audit_key(prefix: str = "") -> str:
    """The stream of the audit."""
    return f"{prefix}millpond:audit"


def schedules_key(prefix: str = "") -> str:
    """The set of schedules."""
    return f"{prefix}millpond:schedules"


def schedule_key(name: str, prefix: str = "") -> str:
    """The hash of a schedule's state."""
    return f"{prefix}millpond:schedule:{name}"


def scheduler_key(prefix: str = "") -> str:
    """The lease of the leading scheduler."""
    return f"{prefix}millpond:scheduler"

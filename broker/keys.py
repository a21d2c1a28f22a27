"""Name every key, in one place.

Ready messages stay where stock Celery keeps them: the list named as the queue, and one more for each
further priority step. All else of a queue lies beside it under `millpond:{queue}:`.
"""

from dataclasses import dataclass
from functools import cached_property

#: kombu's priority steps and what it puts between a queue's name and the step; 0 leaves first.
PRIORITY_STEPS = (0, 3, 6, 9)
SEPARATOR = "\x06\x16"


def step_of(priority: int) -> int:
    """Return the index of the ready list that a priority (0 first, 9 last) belongs to."""
    return sum(priority >= step for step in PRIORITY_STEPS[1:])


@dataclass(frozen=True)
class QueueKeys:
    """Name the keys of one queue; `prefix` stands before all of them."""

    queue: str
    prefix: str = ""

    def _own(self, part: str) -> str:
        return f"{self.prefix}millpond:{{{self.queue}}}:{part}"

    @cached_property
    def ready(self) -> tuple[str, ...]:
        """Name the ready lists, one a priority step."""
        name = self.prefix + self.queue
        return tuple(f"{name}{SEPARATOR}{step}" if step else name for step in PRIORITY_STEPS)

    @cached_property
    def all(self) -> tuple[str, ...]:
        """Name the fifteen keys that every script takes, in the order of scripts/_queue.lua."""
        beside = ("delayed", "dead", "consumers", "deliveries", "limits", "counters", "wake", "held:")
        return (*self.ready, *map(self._own, (*beside, "line", "once:", "pace")))

    @cached_property
    def bucket(self) -> str:
        """Name the token bucket of the rate limit."""
        return self._own("bucket")

    @cached_property
    def dead(self) -> str:
        """Name the stream of dead letters."""
        return self._own("dead")

    @cached_property
    def delayed(self) -> str:
        """Name the sorted set of messages that are not due."""
        return self._own("delayed")

    @cached_property
    def consumers(self) -> str:
        """Name the sorted set of leases."""
        return self._own("consumers")

    @cached_property
    def limits(self) -> str:
        """Name the hash of limits."""
        return self._own("limits")

    @cached_property
    def counters(self) -> str:
        """Name the hash of counters."""
        return self._own("counters")

    @cached_property
    def wake(self) -> str:
        """Name the list of wake tokens."""
        return self._own("wake")

    def in_flight(self, consumer: str) -> str:
        """Name the hash of what a consumer holds."""
        return self._own("held:") + consumer

    @cached_property
    def unique(self) -> str:
        """Name what stands before the claims of messages sent once."""
        return self._own("once:")

    @cached_property
    def waiters(self) -> str:
        """Name the sorted set of producers that wait for room."""
        return self._own("line")

    def grant(self, ticket: str) -> str:
        """Name the list on which a producer sleeps that waits for room."""
        return self._own("line:room:") + ticket

    @cached_property
    def drain_rate(self) -> str:
        """Name the hash of what was measured of the pool's speed."""
        return self._own("pace")


def batch_key(batch: str | None, prefix: str = "") -> str:
    """Name the record of a batch; its results lie beside it under `:results`.

    No batch is the empty string.
    """
    return f"{prefix}millpond:batch:{{{batch}}}" if batch else ""


def batches_key(prefix: str = "") -> str:
    """Name the sorted set of batches by the time they were opened."""
    return f"{prefix}millpond:batches"


def queues_key(prefix: str = "") -> str:
    """Name the set of queues that were ever declared."""
    return f"{prefix}millpond:queues"


def cancelled_key(prefix: str = "") -> str:
    """Name the sorted set of cancelled tasks and batches."""
    return f"{prefix}millpond:cancelled"


def terminated_key(prefix: str = "") -> str:
    """Name the sorted set of what is cancelled and also ended where it runs."""
    return f"{prefix}millpond:cancelled:terminated"


def drained_key(prefix: str = "") -> str:
    """Name the hash of drained pools and when each was (ms)."""
    return f"{prefix}millpond:drained"


def known_epochs_key(prefix: str = "") -> str:
    """Name the hash of worker processes and the epoch of cancellations that each knows."""
    return f"{prefix}millpond:cancelled:known"


def epoch_key(prefix: str = "") -> str:
    """Name the counter that rises with every cancellation, and the channel that tells of it."""
    return f"{prefix}millpond:cancelled:epoch"


def processes_key(prefix: str = "") -> str:
    """Name the sorted set of worker processes by when they reported last."""
    return f"{prefix}millpond:processes"


def process_key(process: str, prefix: str = "") -> str:
    """Name the last report of a worker process."""
    return f"{prefix}millpond:process:{process}"


def pools_key(prefix: str = "") -> str:
    """Name the set of pools that ever reported."""
    return f"{prefix}millpond:pools"


def pool_totals_key(pool: str, prefix: str = "") -> str:
    """Name the hash of what the processes of a pool have done since the pool was first used."""
    return f"{prefix}millpond:pool:{pool}:totals"


def samples_key(what: str, prefix: str = "") -> str:
    """Name the stream of samples of `queue:<name>` or `pool:<name>`, over the last hour."""
    return f"{prefix}millpond:samples:{what}"


def sampling_key(prefix: str = "") -> str:
    """Name the claim of whoever takes the next samples."""
    return f"{prefix}millpond:sampling"


def writing_key(prefix: str = "") -> str:
    """Return the key to which nothing is ever written, to see whether something could be."""
    return f"{prefix}millpond:writing"


def audit_key(prefix: str = "") -> str:
    """Name the stream of what people changed."""
    return f"{prefix}millpond:audit"


def schedules_key(prefix: str = "") -> str:
    """Name the set of periodic tasks."""
    return f"{prefix}millpond:schedules"


def schedule_key(name: str, prefix: str = "") -> str:
    """Name the hash of how a periodic task stands."""
    return f"{prefix}millpond:schedule:{name}"


def scheduler_key(prefix: str = "") -> str:
    """Name the lease of the scheduler that leads."""
    return f"{prefix}millpond:scheduler"

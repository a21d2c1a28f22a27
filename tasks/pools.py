"""The settings of pools and queues, with their defaults. The environment and millpond.toml change them.

A pool has processes x concurrency slots of one executor, which take from its queues. A queue has a bound and
an overflow policy. Every deployment (embedded, compose, Kubernetes, systemd) uses these settings.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field, model_validator

from millpond.tasks.configuration.sources import merge_tables
from millpond.tasks.errors import SettingsError
from millpond.tasks.field_types import Bound, Count, CountOrZero, Rate, Seconds, SettingsTable, Words
from millpond.tasks.name_suggestions import closest_name, unknown_name_text
from millpond.tasks.toml_names import table_header

Executor = Literal["prefork", "threads"]
Overflow = Literal["block", "reject", "shed", "caller_runs"]

#: The remedy for time limits of a pool of threads.
LIMITS_REMEDY = 'give the pool executor = "prefork", or give what handlers wait for a timeout of its own'

#: How long a running task may go on after SIGTERM. Every deadline of the deployment is derived from this one.
DRAIN_SECONDS = 30.0

#: The time after the drain deadline to release the messages in flight and to stop the processes, seconds.
STOP_MARGIN_SECONDS = 10.0


class Queue(SettingsTable):
    """The settings of one queue: its bound, its limits and its rules of delivery.

    The limits hold for all workers together.
    """

    bound: Bound = Field(
        10_000,
        description="The most messages that may wait for a slot. As a time: as many messages as the pool "
        "clears in that time, measured while it works.",
    )
    overflow: Overflow = Field(
        "block",
        description="What a full queue does with one more message: the producer waits (`block`) or is "
        "refused (`reject`), the oldest message becomes a dead letter (`shed`), or the producer runs the "
        "task itself (`caller_runs`).",
    )
    max_deliveries: Count = Field(5, description="Deliveries after which a message becomes a dead letter.")
    rate: Rate | None = Field(None, description="The rate at which tasks may start, for the whole fleet.")
    in_flight: Count | None = Field(None, description="Tasks that may run at once, for the whole fleet.")
    lease_seconds: Seconds = Field(
        15.0,
        description="The time after which the messages of a process that does not renew its lease are "
        "ready again.",
    )
    unknown_kind_seconds: Seconds = Field(
        300.0,
        description="The time after which a message whose kind no process of the queue has becomes a dead "
        "letter.",
    )
    soft_limit_seconds: Seconds = Field(
        270.0,
        description="The time a handler may run in a prefork child before an exception is raised in it. "
        "Threads do not keep it.",
    )
    hard_limit_seconds: Seconds = Field(
        300.0,
        description="The time after which the prefork child of a handler is killed; not below the soft "
        "limit. Threads do not keep it: nothing ends their handlers.",
    )

    def broker_limits(self) -> dict[str, Any]:
        """Return the limits that the broker enforces for this queue, by the names of `Limits`."""
        return self.model_dump(
            include={"bound", "overflow", "rate", "in_flight", "max_deliveries"}, exclude_none=True
        )

    @model_validator(mode="after")
    def _check_time_limits(self) -> "Queue":
        if self.soft_limit_seconds > self.hard_limit_seconds:
            raise ValueError("soft_limit_seconds must not be above hard_limit_seconds")
        return self


class Pool(SettingsTable):
    """The settings of one pool: a fixed number of slots, and the queues they take from.

    After the kill of a process, some finished tasks run again: at most slots + 16 with `threads`, and at most
    slots + `prefetch` with `prefork`.
    """

    queues: Words = Field(min_length=1, description="The queues it takes from.")
    executor: Executor = Field(
        "threads",
        description="The sort of slot: `prefork` where a handler may crash or must be killed, `threads` "
        "where it waits for input and output.",
    )
    processes: Count = Field(
        1, description="Processes on each host. Each process fetches messages for itself."
    )
    concurrency: Count = Field(4, description="Slots of a process: tasks that it runs at once.")
    prefetch: CountOrZero = Field(
        16, description="Messages that a process may have fetched beyond its slots."
    )
    max_tasks_per_child: Count | None = Field(
        None,
        description="Tasks after which a prefork child is replaced; short tasks run together count as one.",
    )
    max_memory_per_child_mb: Count | None = Field(
        None, description="Memory above which a prefork child is replaced after its task."
    )

    @property
    def slots(self) -> int:
        """The number of tasks that the pool runs at once on one host."""
        return self.processes * self.concurrency


def default_queues() -> dict[str, Queue]:
    """Return the queues that ship with Millpond, by name."""
    return {
        "email": Queue(bound=10_000, soft_limit_seconds=100, hard_limit_seconds=120),
        "files": Queue(bound=1_000, soft_limit_seconds=540, hard_limit_seconds=600),
        "default": Queue(),
    }


def default_pools() -> dict[str, Pool]:
    """Return the pools that ship with Millpond, by name.

    Mail waits for a network, so it runs on threads. File handlers use the processor and may crash, so they
    run in child processes, one a core.
    """
    return {
        "email": Pool(queues=("email",), executor="threads", concurrency=8, prefetch=16),
        "files": Pool(
            queues=("files",),
            executor="prefork",
            concurrency=os.cpu_count() or 2,
            prefetch=2,
            max_tasks_per_child=1_000,
            max_memory_per_child_mb=1_024,
        ),
        "default": Pool(queues=("default",), executor="threads", concurrency=5, prefetch=16),
    }


class PoolsTable(SettingsTable):
    """All pools and queues of the settings."""

    pools: dict[str, Pool] = Field(default_factory=default_pools)
    queues: dict[str, Queue] = Field(default_factory=default_queues)

    @model_validator(mode="before")
    @classmethod
    def _merge_with_defaults(cls, data: Any) -> Any:
        """Return the given entries, merged with the default entries of the same names."""
        if not isinstance(data, dict):
            return data
        defaults = {
            "pools": {name: pool.model_dump() for name, pool in default_pools().items()},
            "queues": {name: queue.model_dump() for name, queue in default_queues().items()},
        }
        return merge_tables(defaults, data)

    @model_validator(mode="after")
    def _check_queues(self) -> "PoolsTable":
        """Raise `ValueError` for a pool that takes from queues without settings; it names all of them."""
        for name, pool in self.pools.items():
            if missing := [queue for queue in pool.queues if queue not in self.queues]:
                headers = [table_header("queues", queue) for queue in missing]
                tables = f"a {headers[0]} table" if len(headers) == 1 else f"the tables {' '.join(headers)}"
                raise ValueError(f"pool {name!r} takes from {', '.join(map(repr, missing))}: add {tables}")
        return self

    def pool(self, name: str) -> Pool:
        """Return the pool of a name. Raises `SettingsError`."""
        if name not in self.pools:
            raise SettingsError(unknown_name_text("pool", name, self.pools))
        return self.pools[name]

    def are_threads(self, pools: Iterable[str]) -> bool:
        """True if there are such pools, and all of them have threads."""
        return {self.pools[name].executor for name in pools} == {"threads"}

    def limits_not_kept(self, pool_name: str) -> Iterator[str]:
        """Yield a sentence for each queue of a pool of threads whose time limits are not those that ship."""
        if self.pools[pool_name].executor != "threads":
            return
        for name in self.pools[pool_name].queues:
            queue, shipped = self.queues[name], default_queues().get(name, Queue())
            limits = [
                f"{limit} = {value:g}"
                for limit in ("soft_limit_seconds", "hard_limit_seconds")
                if (value := getattr(queue, limit)) != getattr(shipped, limit)
            ]
            if limits:
                yield (
                    f"{' and '.join(limits)} of queue {name} will end no handler: pool {pool_name} runs them "
                    "on threads, which cannot be killed"
                )

    def misspelt_queues(self) -> list[tuple[str, str]]:
        """Return each queue without a pool whose name is similar to a queue with a pool, and that queue.

        A queue with no similar name may have no pool on purpose, so it is left out.
        """
        served = {queue for pool in self.pools.values() for queue in pool.queues}
        suggestions = ((queue, closest_name(queue, served)) for queue in sorted({*self.queues} - served))
        return [(queue, similar) for queue, similar in suggestions if similar is not None]

    def pools_of(self, queue: str) -> list[str]:
        """Return the names of the pools that take from a queue."""
        return [name for name, pool in self.pools.items() if queue in pool.queues]

"""Lay out the pools and the queues: one table, overridable from millpond.toml.

A pool is processes x concurrency slots of one executor that take from its queues; a queue is bounded and
says what happens when it is full. Every deployment (embedded, compose, Kubernetes, systemd) reads this table.
"""

import os
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)

from millpond.tasks.field_types import Bound, Rate, Seconds

Executor = Literal["prefork", "threads"]
Overflow = Literal["block", "reject", "shed", "caller_runs"]

#: Every deadline of the deployment is made from this one: how long a task that runs may go on after SIGTERM.
DRAIN_SECONDS = 30.0

#: What is left after the drain deadline to give back what is still held and to stop the processes.
STOP_MARGIN_SECONDS = 10.0


class Queue(BaseModel):
    """Describe one queue: what it holds at most, and how what it holds is delivered.

    `bound` counts messages that wait for a slot; as a time, `"30s"`, it is as much as the pool clears in
    that time, measured while it works, with what it holds already; `rate` is tasks a second and `in_flight`
    tasks at once, both for the whole fleet; the time limits are seconds of a body's run, the soft one
    raises inside the body.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bound: Bound = 10_000
    overflow: Overflow = "block"
    max_deliveries: PositiveInt = 5
    rate: Rate | None = None
    in_flight: PositiveInt | None = None
    lease_seconds: Seconds = 15.0
    soft_limit_seconds: Seconds = 270.0
    hard_limit_seconds: Seconds = 300.0

    def broker_limits(self) -> dict[str, Any]:
        """Return what the broker enforces for this queue, by the names of `millpond.broker.limits.Limits`."""
        return self.model_dump(
            include={"bound", "overflow", "rate", "in_flight", "max_deliveries"}, exclude_none=True
        )

    @model_validator(mode="after")
    def _soft_before_hard(self) -> "Queue":
        if self.soft_limit_seconds > self.hard_limit_seconds:
            raise ValueError("soft_limit_seconds must not be above hard_limit_seconds")
        return self


class Pool(BaseModel):
    """Describe one pool: a fixed number of slots, and the queues they take from.

    `processes` fetch for themselves, each with `concurrency` slots; `prefetch` messages a process are
    held beyond its slots. A process that is killed has no more finished tasks run again than slots + 16
    on `threads`, slots + `prefetch` on `prefork`. `max_tasks_per_child` and `max_memory_per_child_mb`
    replace a prefork child, after its task; short tasks that share a child at a time count as one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    queues: Annotated[tuple[str, ...], Field(min_length=1)]
    executor: Executor = "threads"
    processes: PositiveInt = 1
    concurrency: PositiveInt = 4
    prefetch: NonNegativeInt = 16
    max_tasks_per_child: PositiveInt | None = None
    max_memory_per_child_mb: PositiveInt | None = None

    @property
    def slots(self) -> int:
        """Count the tasks that the pool runs at once."""
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

    Mail waits for a network, so it runs on threads; file bodies use the processor and may crash, so they
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


class Table(BaseModel):
    """Hold all pools and queues, and know which pool serves a queue."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pools: dict[str, Pool] = Field(default_factory=default_pools)
    queues: dict[str, Queue] = Field(default_factory=default_queues)

    @model_validator(mode="before")
    @classmethod
    def _merge_with_defaults(cls, data: Any) -> Any:
        """Let an override name only what it changes: `[pools.email] concurrency = 20`."""
        if not isinstance(data, dict):
            return data
        return {
            "pools": _overlay(default_pools(), data.get("pools") or {}),
            "queues": _overlay(default_queues(), data.get("queues") or {}),
        }

    @model_validator(mode="after")
    def _every_queue_is_described(self) -> "Table":
        for name, pool in self.pools.items():
            for queue in pool.queues:
                if queue not in self.queues:
                    raise ValueError(f"pool {name!r} takes from {queue!r}: add a [queues.{queue}] table")
        return self

    def pools_of(self, queue: str) -> list[str]:
        """Return the names of the pools that take from a queue."""
        return [name for name, pool in self.pools.items() if queue in pool.queues]


def _overlay(defaults: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = {name: entry.model_dump() for name, entry in defaults.items()}
    for name, change in changes.items():
        fields = change.model_dump() if isinstance(change, BaseModel) else change
        merged[name] = {**merged.get(name, {}), **fields} if isinstance(fields, dict) else fields
    return merged

"""A bottleneck: the pool, the work, the dependency, and the states that are right of it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from millpond.broker.connection import Store
from tests.harness.one_worker import OneWorker

EXECUTORS = ("threads", "prefork")


@dataclass
class Scene:
    """The surroundings of a running case: the value of `around`, the store, the workers."""

    given: Any
    store: Store
    workers: list[OneWorker]
    folder: Path


@dataclass(frozen=True)
class Case:
    """One bottleneck.

    `grows` is true if more slots are expected to raise throughput; the run measures it by doubling them.
    `batched` are fields of a task that does the work of `batched_items` tasks: the run measures the gain.
    """

    name: str
    kind: str
    right: tuple[str, ...]
    grows: bool
    fields: Mapping[str, Any] = field(default_factory=dict)
    executor: str = "threads"
    slots: int = 8
    processes: int = 1
    pool: Mapping[str, Any] = field(default_factory=dict)
    queue: Mapping[str, Any] = field(default_factory=dict)
    #: A second kind, its fields, and its share of the messages.
    beside: tuple[str, Mapping[str, Any], float] | None = None
    around: Callable[[Path], AbstractContextManager[Any]] = lambda _folder: nullcontext()
    #: The fields that depend on the value of `around`.
    given: Callable[[Any], Mapping[str, Any]] = lambda _: {}
    #: The name that the verdict must have.
    named: Callable[[Any], str] = lambda _: ""
    #: The change that is made once the workers are ready, and so many seconds of a healthy pool.
    onset: Callable[[Scene], None] | None = None
    healthy_seconds: float = 0.0
    #: True if the onset is of each worker, as a quota of their container: also of those that are added.
    of_workers: bool = False
    #: The ready messages that the queue is kept filled with.
    backlog: int = 3_000
    #: Messages of each burst, one every ten seconds, instead of a backlog.
    burst: int = 0
    #: True if tasks come one by one, more slowly than the pool works, instead of a backlog.
    steady: bool = False
    #: The delay of the broker's answers, seconds.
    broker_delay: float = 0.0
    #: True if a second process measures the pool of one slot, as a user would by hand.
    second_slot: bool = False
    #: The share of `beside` from the onset on.
    beside_after: float = 0.0
    batched: Mapping[str, Any] = field(default_factory=dict)
    batched_items: int = 0
    #: True if it fills the processors: nothing else is measured beside it.
    computes: bool = False
    #: False where more processes would say nothing: the pool is stopped.
    doubled: bool = True
    #: True where slots wait for each other in their process: it is started again with twice as many.
    inside: bool = False

    @property
    def label(self) -> str:
        """The name and the executor."""
        return f"{self.name}, {self.executor}"


def on_both_executors(
    name: str, kind: str, right: tuple[str, ...], grows: bool, **more: Any
) -> Iterator[Case]:
    """Yield a bottleneck on threads and on prefork children."""
    for executor in EXECUTORS:
        yield Case(name, kind, right, grows, executor=executor, **more)

"""Draw the tasks of a run from its seed: delayed, retried, failing, of every priority, in batches."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.scenarios.chaos.kinds import QUEUES

CHUNK = 40


@dataclass(frozen=True)
class Planned:
    """One task before it is sent. It ends with a retry `retries` times before it succeeds or `fails`."""

    id: str
    n: int
    queue: str
    priority: int
    delay_seconds: float
    hold_seconds: float
    retries: int
    fails: bool

    @property
    def kwargs(self) -> dict[str, object]:
        """The arguments of the task."""
        return {"n": self.n, "hold_seconds": self.hold_seconds, "retries": self.retries, "fails": self.fails}


@dataclass(frozen=True)
class Chunk:
    """Tasks that are sent together; if `batch`, in a batch of their own."""

    tasks: list[Planned]
    batch: bool


def chunks(seed: int, producer: int, tasks: int) -> Iterator[Chunk]:
    """Yield the chunks of one producer. The same seed gives the same chunks."""
    draw = random.Random(f"{seed}/{producer}")
    for first in range(0, tasks, CHUNK):
        numbers = range(first, min(first + CHUNK, tasks))
        yield Chunk([_planned(draw, producer, n) for n in numbers], draw.random() < 0.3)


def _planned(draw: random.Random, producer: int, n: int) -> Planned:
    return Planned(
        id=f"p{producer}-{n}",
        n=n,
        queue=QUEUES[draw.random() < 0.2],
        priority=draw.choice((0, 0, 0, 3, 6, 9)),
        delay_seconds=draw.uniform(0.1, 4.0) if draw.random() < 0.1 else 0.0,
        hold_seconds=draw.choice((0.0, 0.0, 0.005, 0.02, draw.uniform(0.0, 0.5) if n % 20 == 0 else 0.0)),
        retries=draw.choice((1, 2)) if draw.random() < 0.08 else 0,
        fails=draw.random() < 0.02,
    )

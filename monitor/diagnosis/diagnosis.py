"""The diagnosis of a pool."""

from dataclasses import dataclass
from typing import Literal

State = Literal[
    "idle",
    "keeps up",
    "bursts",
    "skew",
    "catching up",
    "no worker",
    "processes missing",
    "paused",
    "drained",
    "limit",
    "failing",
    "batching",
    "broker",
    "recycling",
    "processor",
    "lock",
    "dependency",
    "workers",
    "unclear",
]

#: States in which nothing is wrong.
CALM = ("idle", "keeps up", "catching up")


@dataclass(frozen=True)
class KindShare:
    """One kind of a pool in the newest window: its part of the slots' time, 0 to 1, its rate, times and ends.

    `usual_seconds` is its usual mean service time, None if not known. `failed` and `retried` are shares of
    its runs. `error` is the commonest of its errors.
    """

    kind: str
    time_share: float
    rate: float
    mean_seconds: float | None
    usual_seconds: float | None
    failed: float
    retried: float
    error: str


@dataclass(frozen=True)
class Diagnosis:
    """The state of a pool: `why` in figures, `advice` in a sentence, and the `command` to type next.

    `name` is the peer, lock, kind or queue concerned. `confidence` is between 0 and 1. The pool has
    `slots`. With `slots_wanted`, `predicted_rate` tasks would end a second, and the backlog would be cleared
    in `clear_seconds`. `elasticity` ± `elasticity_error` (90 %) is how throughput grew with slots when it was
    measured last.
    """

    pool: str
    state: State
    why: str
    advice: str = ""
    name: str = ""
    confidence: float = 1.0
    evidence: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    trend: str = ""
    command: str = ""
    slots: int = 0
    slots_wanted: int | None = None
    predicted_rate: float | None = None
    clear_seconds: float | None = None
    #: How many times as much batching would bring.
    predicted_gain: float | None = None
    #: The effect of the last change of slots.
    outcome: str = ""
    #: How long runs take, beside an hour ago and yesterday at this time.
    compared: str = ""
    elasticity: float | None = None
    elasticity_error: float | None = None
    #: The cost of measuring in this hour, in seconds of the pool's rate.
    probe_seconds: float = 0.0
    #: The parts of a slot's time: labels and shares, the largest first; the shares add up to 1.
    slot_time: tuple[tuple[str, float], ...] = ()
    #: The kinds that take most of the slots' time, the first one most.
    kinds: tuple[KindShare, ...] = ()
    #: Measured throughput by number of slots.
    measured: tuple[tuple[int, float], ...] = ()

    @property
    def is_calm(self) -> bool:
        """True if nothing is wrong."""
        return self.state in CALM

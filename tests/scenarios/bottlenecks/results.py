"""The verdict on each bottleneck and the truth about it, as lines of a file, and their confusion matrix."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

#: A gain of at least this share of proportional growth counts as growth; of at most the second, as none.
GREW, DID_NOT = 0.6, 0.35
#: The predicted throughput may be off by this.
OFF = 0.2


@dataclass
class Seen:
    """The verdicts on a case, and the truth about it: the gain by twice the slots, and by batching."""

    label: str
    right_states: tuple[str, ...]
    grows: bool
    right_after: float | None = None
    said: list[str] = field(default_factory=list)
    why: str = ""
    named: bool = True
    slots: int = 0
    slots_wanted: int | None = None
    before: float | None = None
    after: float | None = None
    gain: float | None = None
    batched_gain: float | None = None
    predicted: float | None = None
    came: float | None = None

    @property
    def grew(self) -> bool | None:
        """True if more slots raised the measured throughput; None if that is not clear."""
        share = None if self.gain is None else self.gain - 1
        return None if share is None or DID_NOT < share < GREW else share >= GREW

    @property
    def falsely_workers(self) -> bool:
        """True if more slots were advised at any time where they do not help."""
        return "workers" in self.said and (not self.grows or self.grew is False)

    @property
    def true_as_made(self) -> bool:
        """True if the measurement agrees with the intention of the case."""
        if self.batched_gain is not None:
            return self.batched_gain >= 1.5
        return self.grew in (None, self.grows)

    @property
    def right(self) -> bool:
        """True if the verdict was right in time, with the name that it has to have."""
        return self.right_after is not None and self.named and not self.falsely_workers

    @property
    def predicted_well(self) -> bool | None:
        """True if the predicted throughput came true; None if none was predicted."""
        if self.predicted is None or not self.came:
            return None
        return abs(self.predicted / self.came - 1) <= OFF

    @property
    def line(self) -> str:
        """The case in one line."""
        mark = "right" if self.right else "FALSE WORKERS" if self.falsely_workers else "wrong"
        after = "-" if self.right_after is None else f"{self.right_after:.0f} s"
        gain = "" if self.gain is None else f"doubling x{self.gain:.2f}"
        gain += "" if self.batched_gain is None else f", batched x{self.batched_gain:.1f}"
        if self.predicted is not None and self.came:
            gain += f", predicted {self.predicted:.1f}, came {self.came:.1f}"
        if not self.true_as_made:
            gain += " (NOT AS MADE)"
        said = f"said {' > '.join(self.said)}; {json.dumps(self.why, ensure_ascii=False)}"
        return f"{mark:13} {self.label:58} {after:>5} {gain}; {said}"


def append(seen: Seen, file: Path) -> None:
    """Add a line to a file of results."""
    with file.open("a") as to:
        to.write(json.dumps(asdict(seen)) + "\n")


def load(files: Iterable[Path]) -> list[Seen]:
    """Return the results of files; of a case that was run again, the last."""
    found = [Seen(**json.loads(line)) for file in files for line in file.read_text().splitlines()]
    return list({seen.label: seen for seen in found}.values())


def matrix(results: Iterable[Seen]) -> Iterator[str]:
    """Yield the confusion matrix and the sums."""
    seen = list(results)
    counted = Counter(
        (
            each.right_states[0],
            (each.right_states[0] if each.right else each.said[-1]) if each.said else "-",
        )
        for each in seen
    )
    yield "| true | said | cases |"
    yield "|---|---|---:|"
    for (true, said), times in sorted(counted.items()):
        yield f"| {true} | {said} | {times} |"
    right, falsely = sum(each.right for each in seen), sum(each.falsely_workers for each in seen)
    predicted = [each.predicted_well for each in seen if each.predicted_well is not None]
    made = sum(each.true_as_made for each in seen)
    yield ""
    yield f"{right} of {len(seen)} right, {falsely} times falsely `workers`;"
    yield f"{made} as they were made, by the run's own measure;"
    yield f"{sum(predicted)} of {len(predicted)} predicted throughputs within {OFF:.0%}"

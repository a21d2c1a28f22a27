"""The failures of a command: the first of each kind are printed as they come, the rest counted by kind."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

#: Failures of one kind that are printed one by one.
_PRINTED_OF_A_KIND = 5
#: Lines in all, one by one and at the end; --json prints every failure.
_PRINTED, _KINDS = 20, 10
_REMEMBERED = 1_000
#: The parts in which two failures of one kind differ: paths, numbers and values.
_PARTICULARS = re.compile(r"\S*/\S*|'[^']*'|\"[^\"]*\"|\d+")


class Failures:
    """Decides which failures a person sees. A folder of a thousand wrong files is one summary."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._reasons: dict[str, str] = {}
        self._printed: Counter[str] = Counter()

    def add_failure(self, label: str, reason: str) -> str | None:
        """Add a failure. Return its line, or None if it is only counted."""
        kind = _kind_of_reason(label, reason)
        if kind not in self._counts and len(self._counts) >= _REMEMBERED:
            kind = reason = "other reasons"
        self._counts[kind] += 1
        self._reasons.setdefault(kind, reason)
        if self._printed[kind] >= _PRINTED_OF_A_KIND or self._printed.total() >= _PRINTED:
            return None
        self._printed[kind] += 1
        return f"{label}: {reason}"

    def summary_lines(self) -> Iterator[str]:
        """Yield a line for each kind of failure of which some were not printed, the most frequent first."""
        unprinted = self._counts - self._printed
        for kind, count in unprinted.most_common(_KINDS):
            more = "more" if self._printed[kind] else "others"
            yield f"… {count:,} {more} failed like this: {self._reasons[kind]}"
        further = len(unprinted) - _KINDS
        if further > 0:
            yield f"… and {sum(sorted(unprinted.values())[:further]):,} for {further:,} other reasons"
        if unprinted:
            yield "--json prints every failure"


def _kind_of_reason(label: str, reason: str) -> str:
    """Return a reason without the parts that are particular to one input."""
    for name in (label, PurePosixPath(label).name):
        reason = reason.replace(name, "") if name else reason
    return _PARTICULARS.sub("", reason)[:500]

"""The failures of a command: the first with a reason are printed as they come, the others only counted.

Reasons that differ in paths, numbers and quoted values only count as one reason.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

#: The most failures that are printed one by one: with the same reason, and in all.
_MAX_PRINTED_PER_REASON, _MAX_PRINTED = 5, 20
#: The most reasons that the summary names; --json prints every failure.
_SUMMARY_REASONS = 10
#: The most reasons that are counted apart, which bounds the memory.
_COUNTED_REASONS = 1_000
#: The parts in which reasons that count as one may differ: paths, numbers and quoted values.
_PARTICULARS = re.compile(r"\S*/\S*|'[^']*'|\"[^\"]*\"|\d+")


class Failures:
    """Decides which failures are printed, so that a folder of a thousand wrong files is a few lines."""

    def __init__(self) -> None:
        #: Each of the three by the common part of the reason.
        self._counts: Counter[str] = Counter()
        self._printed: Counter[str] = Counter()
        self._first_reasons: dict[str, str] = {}

    def add_failure(self, label: str, reason: str) -> str | None:
        """Count a failure. Return the line to print for it.

        Return None once enough failures with its reason, or enough in all, were printed.
        """
        common = _common_part(label, reason)
        if common not in self._counts and len(self._counts) >= _COUNTED_REASONS:
            common = reason = "other reasons"
        self._counts[common] += 1
        self._first_reasons.setdefault(common, reason)
        if self._printed[common] >= _MAX_PRINTED_PER_REASON or self._printed.total() >= _MAX_PRINTED:
            return None
        self._printed[common] += 1
        return f"{label}: {reason}"

    def summary_lines(self) -> Iterator[str]:
        """Yield a line for each reason whose failures were not all printed, the most frequent first."""
        unprinted = self._counts - self._printed
        for common, count in unprinted.most_common(_SUMMARY_REASONS):
            more = "more" if self._printed[common] else "others"
            yield f"… {count:,} {more} failed like this: {self._first_reasons[common]}"
        further = len(unprinted) - _SUMMARY_REASONS
        if further > 0:
            yield f"… and {sum(sorted(unprinted.values())[:further]):,} for {further:,} other reasons"
        if unprinted:
            yield "--json prints every failure"


def _common_part(label: str, reason: str) -> str:
    """Return a reason without the parts that name one input or its values, at most 500 characters."""
    for name in (label, PurePosixPath(label).name):
        reason = reason.replace(name, "") if name else reason
    return _PARTICULARS.sub("", reason)[:500]

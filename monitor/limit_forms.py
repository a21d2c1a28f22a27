"""Parse the limits of a queue from the texts of a form."""

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

from millpond.tasks.durations import parse_bound, parse_rate
from millpond.tasks.errors import BadInput
from millpond.tasks.pools import Overflow

#: The precision of a number in a Lua script.
DIGITS = 15

OVERFLOWS: tuple[str, ...] = get_args(Overflow)


def parse_limits(written: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the limits to change. The value None unsets a limit. Raises `BadInput`."""
    return {name: None if text is None else LIMITS[name](text) for name, text in written.items()}


def _whole_number_parser(name: str) -> Callable[[str], int]:
    """Return a parser for a limit that is a whole number. The parser raises `BadInput`."""

    def read(text: str) -> int:
        plain = text.replace(",", "").strip()
        if not plain.isdecimal() or len(plain) > DIGITS or int(plain) < 1:
            raise BadInput(f"{name} is a whole number from 1 on, not {text!r:.80}")
        return int(plain)

    return read


def _parse_burst(text: str) -> float:
    """Return the burst of a rate. Raises `BadInput`."""
    try:
        burst = float(text.replace(",", ""))
    except ValueError:
        burst = math.nan
    if not 1 <= burst < math.inf:
        raise BadInput(f"burst is a number from 1 on, not {text!r:.80}")
    return burst


def _parse_overflow(text: str) -> str:
    if text not in OVERFLOWS:
        raise BadInput(f"overflow is one of {', '.join(OVERFLOWS)}, not {text!r}")
    return text


#: The limits that can be set, each with its parser.
LIMITS: dict[str, Callable[[str], Any]] = {
    "bound": parse_bound,
    "overflow": _parse_overflow,
    "rate": parse_rate,
    "burst": _parse_burst,
    "in_flight": _whole_number_parser("in flight"),
    "max_deliveries": _whole_number_parser("max deliveries"),
}

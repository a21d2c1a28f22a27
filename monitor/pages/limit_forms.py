"""Parse the limits of a queue from the fields of a page's form."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, get_args

from millpond.tasks.durations import parse_bound, parse_rate
from millpond.tasks.errors import BadInput
from millpond.tasks.pools import Overflow

#: The most digits of a whole number that a Lua script of the broker keeps exactly.
MOST_DIGITS = 15

OVERFLOWS: tuple[str, ...] = get_args(Overflow)


def parse_limits(fields: Mapping[str, str | None]) -> dict[str, Any]:
    """Return the value of each limit, from the field of the form.

    An empty field is None, and so is the value: it unsets the limit. Raises `BadInput` for a text that is no
    value of its limit.
    """
    return {name: None if text is None else LIMITS[name](text) for name, text in fields.items()}


def _parse_whole_number(name: str, text: str) -> int:
    """Return a limit that is a whole number from 1 on. Raises `BadInput`, which has its name."""
    digits = text.replace(",", "").strip()
    if not digits.isdecimal() or len(digits) > MOST_DIGITS or int(digits) < 1:
        raise BadInput(f"{name} is a whole number from 1 on, not {text!r:.80}")
    return int(digits)


def _parse_burst(text: str) -> float:
    """Return the burst of a rate limit, a number from 1 on. Raises `BadInput`."""
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
    "in_flight": partial(_parse_whole_number, "in flight"),
    "max_deliveries": partial(_parse_whole_number, "max deliveries"),
}

"""Read what a person writes for a length of time or a rate."""

import math
import re

from millpond.tasks.errors import BadInput

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def milliseconds(text: str) -> int:
    """Return the ms of `90s`, `1.5h`, `7d` or `250ms`; raise `BadInput`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", text.strip())
    if not found or not math.isfinite(float(found[1])):
        raise BadInput(
            f"{text!r:.80} is no length of time: write a number and ms, s, m, h or d, as in 90s or 7d"
        )
    return int(float(found[1]) * _SECONDS[found[2]] * 1000)


def per_second(text: str) -> float:
    """Return the tasks a second of `50`, `50/s`, `100/m`, `5/h` or `1.2e-05`; raise `BadInput`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e-?\d+)?)(?:\s*/\s*(s|m|h|d))?", text.strip())
    if not found or not 0 < float(found[1]) < math.inf:
        raise BadInput(f"{text!r:.80} is no rate: write tasks a second, minute or hour, as in 50/s or 100/m")
    return float(found[1]) / _SECONDS[found[2] or "s"]

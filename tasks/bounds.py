"""Read the bound of a queue: a number of messages, or a time, as much as its pool clears in it."""

import re
from typing import Any

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}


def read_bound(value: Any) -> int | str:
    """Return messages, or seconds as the broker has them: `5000`, `30s`, `500ms`, `5m`, `1h`.

    Raises `ValueError` for anything else.
    """
    text = str(value).strip().replace("_", "")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)", text)
    if found and float(found[1]) > 0:
        seconds = float(found[1]) * _SECONDS[found[2]]
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    if not isinstance(value, bool) and text.isdecimal() and int(text) > 0:
        return int(text)
    raise ValueError(f"{value!r} is no bound: write messages, as in 5000, or a time, as in 30s or 5m")

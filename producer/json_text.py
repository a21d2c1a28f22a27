"""Read and write JSON by RFC 8259, which has neither NaN nor infinities. Python's own module has both.

Here they are refused in input, and written as null in results.
"""

import math
from json import JSONDecodeError, dumps, loads
from typing import Any, NoReturn

from pydantic import BaseModel

_NOT_FINITE = "NaN and infinities are not JSON"


def parse_json(text: bytes | bytearray) -> Any:
    """Return the value of a JSON text. Raises `ValueError`, also for a number too large for a float."""
    return loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)


def require_finite(job: BaseModel, text: bytes | bytearray) -> None:
    """Raise `ValueError` if a contract that was read from a JSON text contains NaN or an infinity.

    The string "NaN" is valid JSON, and pydantic reads it as a number where a field is a float.
    """
    lower = text.lower()
    if b"nan" in lower or b"inf" in lower:
        _check_finite(job.model_dump())


def _check_finite(value: Any) -> None:
    """Raise `ValueError` if the value contains NaN or an infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(_NOT_FINITE)
    # Other values that can be iterated may have no end: a network has all its addresses.
    if isinstance(value, dict | list | tuple | set | frozenset):
        for part in value.values() if isinstance(value, dict) else value:
            _check_finite(part)


def to_text(value: Any, *, separators: tuple[str, str] | None = None) -> str:
    """Return the JSON text of a value: null for NaN and infinities, U+FFFD for half a surrogate pair."""
    try:
        text = dumps(value, allow_nan=False, separators=separators)
        if "\\ud" not in text:  # the escape of a surrogate: most parsers refuse half a pair
            return text
    except ValueError:
        pass
    return dumps(_replace_unwritable(value), allow_nan=False, separators=separators)


def describe_fault(subject: str, error: Exception) -> str:
    """Return the error message for a text that `parse_json` or `require_finite` refused.

    `subject` names the text: "the body". A parser's own message is left out, because it may quote the text.
    """
    match error:
        case JSONDecodeError() if not error.doc.strip():
            return f"{subject} is empty"
        case JSONDecodeError():
            line = f"line {error.lineno}, " if "\n" in error.doc.strip() else ""
            return f"{subject} is not JSON at {line}column {error.colno}"
        case UnicodeDecodeError():
            return f"{subject} is not UTF-8"
        case RecursionError():
            return f"{subject} nests too deep"
    if str(error).startswith(_NOT_FINITE):
        return f"{subject} is not JSON: {error}"
    return f"{subject} has a whole number of too many digits"  # int() has a limit, and its error no type


def _replace_unwritable(value: Any) -> Any:
    """Return a value with null for NaN and infinities, and U+FFFD for half a surrogate pair."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_replace_unwritable(name): _replace_unwritable(part) for name, part in value.items()}
        case list() | tuple():
            return [_replace_unwritable(part) for part in value]
    return value


def _parse_float(text: str) -> float:
    """Return the number of a text. Raises `ValueError` if it is too large for a float."""
    number = float(text)
    if math.isinf(number):
        _refuse_constant(text)
    return number


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{_NOT_FINITE}: {text:.20}")

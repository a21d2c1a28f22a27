"""The budget of one rendering of a template: its time, all text that it produces, the size of each value.

A mail needs little of each. Text that does not reach the mail counts too: a template that keeps text in a
variable or a macro takes as much memory.
"""

import time
from collections.abc import ItemsView, KeysView, ValuesView
from threading import local
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

RENDER_SECONDS = 5.0
MAX_RENDERED_CHARACTERS = 1_000_000
#: All text of one rendering, intermediate text included.
MAX_MADE_CHARACTERS = 20 * MAX_RENDERED_CHARACTERS
#: The size of a value that a filter reads, with all that it contains; some filters take quadratic time.
MAX_VALUE_CHARACTERS = 200_000
MAX_NUMBER_BITS = 1_024

_spent = local()


class RenderTimeout(SecurityError):
    """The rendering exceeded its time."""


class RenderedTooMuch(SecurityError):
    """The template produced more text than a mail may hold."""


def start(seconds: float) -> None:
    """Start the budget of one rendering on this thread, of at most `seconds`."""
    _spent.deadline, _spent.characters = time.monotonic() + seconds, 0


def check_time() -> None:
    """Raise `RenderTimeout` once the time is up."""
    if time.monotonic() > getattr(_spent, "deadline", float("inf")):
        raise RenderTimeout("it ran for too long")


def check_length(length: float) -> None:
    """Raise `RenderedTooMuch` for a text that is too long for a mail; call it before the text is produced."""
    if length > MAX_RENDERED_CHARACTERS:
        raise RenderedTooMuch(f"it makes more than {MAX_RENDERED_CHARACTERS} characters")


def charge(count: int) -> None:
    """Charge characters, or entries of a list. Raises `RenderedTooMuch`."""
    _spent.characters = getattr(_spent, "characters", 0) + count
    if _spent.characters > MAX_MADE_CHARACTERS:
        raise RenderedTooMuch(f"it makes more than {MAX_MADE_CHARACTERS} characters on its way")


def check_values(*values: Any) -> int:
    """Return the size of the values in characters. Raises `RenderedTooMuch` above the limit of a filter."""
    return _size(list(values), MAX_VALUE_CHARACTERS)


def charged(value: Any) -> Any:
    """Charge a value and return it."""
    charge(_size([value], MAX_MADE_CHARACTERS))
    return value


def check_number(value: Any) -> Any:
    """Return a value. Raises `RenderedTooMuch` for a number too large to compute with quickly."""
    if isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
        raise RenderedTooMuch("it computes with huge numbers")
    return value


def _size(left: list[Any], limit: int) -> int:
    size = 0
    while left:
        value = left.pop()
        if isinstance(value, str | bytes):
            size += len(value)
        elif isinstance(value, list | tuple | set | frozenset | dict | KeysView | ValuesView | ItemsView):
            size += len(value)
            if size <= limit:
                left.extend(value.items() if isinstance(value, dict) else value)
        elif isinstance(value, Namespace):
            left.append(vars(value)["_Namespace__attrs"])
        else:
            size += 1
            check_number(value)
        if size > limit:
            raise RenderedTooMuch(f"it works on more than {limit} characters at once")
    return size

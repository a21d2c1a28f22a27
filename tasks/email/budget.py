"""Bound what one rendering of a template may take: its time, all text that it makes, each value it works on.

A mail needs little of any. What is counted is text on its way into the mail as well, for a template that
keeps what it made, or makes it in a macro, takes as much memory as one that sends it.
"""

import time
from collections.abc import ItemsView, KeysView, ValuesView
from threading import local
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.utils import Namespace

RENDER_SECONDS = 5.0
MAX_RENDERED_CHARACTERS = 1_000_000
#: Text made in all, that which is only made on the way included.
MAX_MADE_CHARACTERS = 20 * MAX_RENDERED_CHARACTERS
#: A value that a filter works on, all that it holds together; some take quadratic time.
MAX_VALUE_CHARACTERS = 200_000
MAX_NUMBER_BITS = 1_024

_spent = local()


class TookTooLong(SecurityError):
    """Rendering went on past its deadline."""


class MadeTooMuch(SecurityError):
    """A template made more text than a mail may hold."""


def begin(seconds: float) -> None:
    """Start to count anew: a template is rendered on this thread, in so many seconds at most."""
    _spent.deadline, _spent.made = time.monotonic() + seconds, 0


def look_at_clock() -> None:
    """Raise `TookTooLong` when the time is over."""
    if time.monotonic() > getattr(_spent, "deadline", float("inf")):
        raise TookTooLong("it ran for too long")


def measure(length: float) -> None:
    """Raise `MadeTooMuch` for one text that no mail may hold; call it before the text is made."""
    if length > MAX_RENDERED_CHARACTERS:
        raise MadeTooMuch(f"it makes more than {MAX_RENDERED_CHARACTERS} characters")


def charge(count: int) -> None:
    """Count characters, or values of a list, that are made."""
    _spent.made = getattr(_spent, "made", 0) + count
    if _spent.made > MAX_MADE_CHARACTERS:
        raise MadeTooMuch(f"it makes more than {MAX_MADE_CHARACTERS} characters on its way")


def bounded(*values: Any) -> int:
    """Return how much the values hold, in characters; raise `MadeTooMuch` for more than a filter may get."""
    return _size(list(values), MAX_VALUE_CHARACTERS)


def made(value: Any) -> Any:
    """Count what was made and return it."""
    charge(_size([value], MAX_MADE_CHARACTERS))
    return value


def number(value: Any) -> Any:
    """Return a value; raise `MadeTooMuch` for a number so large that to compute with it takes long."""
    if isinstance(value, int) and value.bit_length() > MAX_NUMBER_BITS:
        raise MadeTooMuch("it computes with huge numbers")
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
            number(value)
        if size > limit:
            raise MadeTooMuch(f"it works on more than {limit} characters at once")
    return size

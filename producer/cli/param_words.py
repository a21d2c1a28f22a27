"""The parameters of a command in words: the help of each, and the values that it may have."""

from functools import partial
from typing import Any


def describe_parameters(command: Any) -> None:
    """Replace the types of Python in the help of a command, and of those under it, by words."""
    for param in command.params:
        kind = param.type_descriptor.annotation
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None  # noqa: ARG005 - its name says it
        elif param.metavar is None and not param.is_flag:
            param.metavar = "N" if kind in (int, float) else "TEXT"
        param._get_number_range_help_str = partial(_limit_words, param)
    for each in getattr(command, "commands", {}).values():
        describe_parameters(each)


def refusal_line(error: Any) -> str | None:
    """Return the line about a value that does not fit its parameter.

    Return None if the error has its own line.
    """
    param, cause = getattr(error, "param", None), error.__cause__
    if param is None or not hasattr(cause, "errors"):
        return None
    name = max(param.opts, key=len) if param.param_type_name == "option" else param.display_name_raw
    return f"{name}: {cause.errors()[0]['input']!r} cannot be used: write {_valid_values(param)}."


def _valid_values(param: Any) -> str:
    kind, limits = param.type_descriptor.annotation, _limit_words(param)
    words = {int: "a whole number", float: "a number"}.get(kind, "another value")
    return f"{words} {limits}" if limits else words


def _limit_words(param: Any) -> str | None:
    """Return the numbers between which a value lies, "from 1 on". Return None if there is no bound."""
    least, most = getattr(param, "min", None), getattr(param, "max", None)
    if least is None:
        return None if most is None else f"up to {most}"
    return f"from {least} on" if most is None else f"from {least} to {most}"

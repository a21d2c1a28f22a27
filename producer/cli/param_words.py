"""Describe the parameters of a command in words: the values that each accepts, in its help and its errors."""

from functools import partial
from typing import Any


def describe_parameters(command: Any) -> None:
    """Replace the names of Python types in the help of a command, and of its subcommands, by words."""
    for param in command.params:
        python_type = param.type_descriptor.annotation
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None  # noqa: ARG005  no type: the argument's name says it
        elif param.metavar is None and not param.is_flag:
            param.metavar = "N" if python_type in (int, float) else "TEXT"
        param._get_number_range_help_str = partial(_limit_words, param)
    for subcommand in getattr(command, "commands", {}).values():
        describe_parameters(subcommand)


def format_click_error(error: Any) -> str | None:
    """Return the error line for a value that a parameter does not accept.

    Return None for any other usage error, which has a line of its own.
    """
    param, cause = getattr(error, "param", None), error.__cause__
    if param is None or not hasattr(cause, "errors"):
        return None
    name = max(param.opts, key=len) if param.param_type_name == "option" else param.display_name_raw
    return f"{name}: {cause.errors()[0]['input']!r} cannot be used: write {_valid_values(param)}."


def _valid_values(param: Any) -> str:
    """Return the values that a parameter accepts in words: "a whole number from 1 on"."""
    python_type, limits = param.type_descriptor.annotation, _limit_words(param)
    words = {int: "a whole number", float: "a number"}.get(python_type, "another value")
    return f"{words} {limits}" if limits else words


def _limit_words(param: Any) -> str | None:
    """Return the limits of a number in words, "from 1 on". Return None if there are none."""
    minimum, maximum = getattr(param, "min", None), getattr(param, "max", None)
    if minimum is None:
        return None if maximum is None else f"up to {maximum}"
    return f"from {minimum} on" if maximum is None else f"from {minimum} to {maximum}"

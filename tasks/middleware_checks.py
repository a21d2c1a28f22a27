"""Check the methods of a middleware as it is loaded, so that a wrong one does not fail each task, or none.

An `async` method, or one with `yield`, would return an object whose code never runs: without this check each
task would count as succeeded, and no handler would have run.
"""

import inspect
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from millpond.tasks.errors import SettingsError
from millpond.tasks.name_suggestions import known_names_text


def check_hooks(middleware: object, base: type, subject: str) -> None:
    """Check the methods of `base` that the class of a middleware overrides.

    Raises `SettingsError`, which begins with `subject`, if there is none, or if one cannot be called as a
    hook.
    """
    owner = type(middleware)
    hooks = [name for name in vars(base) if not name.startswith("_")]
    overridden = [name for name in hooks if getattr(owner, name) is not getattr(base, name)]
    if not overridden:
        raise SettingsError(f"{subject} has no method that Millpond calls; {_suggestion(owner, base, hooks)}")
    for name in overridden:
        parameters = list(inspect.signature(getattr(base, name)).parameters)[1:]
        if fault := _fault_of_hook(getattr(middleware, name), parameters):
            signature = ", ".join(["self", *parameters])
            raise SettingsError(
                f"{subject} has a method {name} that {fault}: write `def {name}({signature})`"
            )


def _fault_of_hook(method: Callable[..., Any], parameters: list[str]) -> str:
    """Return why a method cannot be called as a hook with these parameters, or "" if it can."""
    if not callable(method):
        return "is no function"
    if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
        return "is async, and runs in no event loop"
    if inspect.isgeneratorfunction(method):
        return "has a yield, so that a call of it runs nothing"
    try:
        with suppress(ValueError):  # the parameters of some functions written in C are unknown
            # A decorator may add arguments to those of the function that it wraps.
            inspect.signature(method, follow_wrapped=False).bind(*parameters)
    except TypeError as bind_error:
        return f"cannot be called with {len(parameters)} arguments ({bind_error})"
    return ""


def _suggestion(owner: type, base: type, hooks: Iterable[str]) -> str:
    """Return the end of the error for a class without hooks: the known hooks, and the one that was meant."""
    own = [name for name in dir(owner) if not name.startswith("_") and not hasattr(base, name)]
    texts = [known_names_text(name, hooks) for name in own] or [known_names_text("", hooks)]
    return max(texts, key=len)

"""Translate pydantic's errors of a field into plain words, without the field's value."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

#: The type of pydantic's error (before a final _: its start) -> the words, with values of its context.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "there is no such field",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "literal_error": "must be {expected}",
    "int_": "must be a whole number",
    "float_": "must be a number",
    "finite_number": "must be a number",
    "bool_": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must fit the pattern {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a table of names and values",
    "model_type": "must be a table of names and values",
    "path_type": "must be a path",
    "timezone_": "must have a time zone, as in 2026-01-31T12:00:00Z",
    "datetime_": "must be a date and time, as in 2026-01-31T12:00:00Z",
    "json_": "must be JSON",
}


#: The types of errors that a validator raises, with words of its own.
_OWN_WORDS = ("value_error", "assertion_error")


def describe_faults(faults: Iterable[Mapping[str, Any]], *, whole: str = "fields") -> Iterator[str]:
    """Yield each entry of `ValidationError.errors()` as the path of its field with dots, and plain words.

    A fault of the fields as a whole has no path. It is a sentence if a validator of their model raised it.
    Otherwise it begins with `the` and `whole`, a name of them.
    """
    for fault in faults:
        words = describe_fault(fault)
        if path := ".".join(map(str, fault["loc"])):
            yield f"{path}: {words}"
        else:
            yield f"the {whole} {words}" if fault.get("type") not in (None, *_OWN_WORDS) else words


def describe_fault(fault: Mapping[str, Any]) -> str:
    """Return an entry of `ValidationError.errors()` as plain words, to follow the name of the field."""
    type_, context = str(fault.get("type")), fault.get("ctx", {})
    if type_ in _OWN_WORDS:
        return str(context.get("error") or fault["msg"].partition(", ")[2])
    if type_ in ("string_too_short", "too_short") and context["min_length"] == 1:
        return "must not be empty"
    for start, words in _WORDS.items():
        if type_ == start or (start.endswith("_") and type_.startswith(start)):
            return words.format(**context)
    return str(fault["msg"]).replace("Input should ", "must ")

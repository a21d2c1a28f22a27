"""Describe the answers that are no success, for OpenAPI."""

from typing import Any

from producer.gateway.refusals import Problem

_LATER = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_MEANINGS = {
    400: "The body cannot be read",
    401: "No token, or one that is not known",
    403: "This token does not open that kind",
    404: "There is no such kind, batch or task",
    408: "The body stopped coming",
    409: "The batch takes nothing more, or the id is taken",
    413: "Longer than it may be",
    415: "Of another media type than this route reads",
    422: "It does not fit: each field is named",
    429: "The queue is full",
    503: "The broker is away, or the gateway has too much to do",
}

PROBLEMS: dict[int, dict[str, Any]] = {
    code: {"model": Problem, "description": meaning, **({"headers": _LATER} if code in (429, 503) else {})}
    for code, meaning in _MEANINGS.items()
}


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of these answers."""
    return {code: PROBLEMS[code] for code in codes}

"""Hooks of schemathesis that write and read lines of JSON; loaded by its command line."""

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines_of_json(_context: Any, value: Any) -> bytes:
    """Write a value twice, as two lines; one that is no object as it is."""
    if isinstance(value, bytes):
        return value
    return (json.dumps(value) + "\n").encode() * 2


@schemathesis.hook
def before_call(_context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Read the results of a batch for a second: an open one streams for ever, up to the time-out."""
    if case.operation.path.endswith("/results"):
        kwargs["timeout"] = 1


@schemathesis.deserializer("application/x-ndjson")
def objects(_context: Any, response: Any) -> Any:
    """Read the lines."""
    return [json.loads(line) for line in response.content.splitlines() if line]

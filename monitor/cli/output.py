"""Print the result of a command: as JSON, or as a line of text."""

import json
from typing import Annotated, Any

import typer

from millpond.broker.message_names import replace_unprintable

JsonLines = Annotated[bool, typer.Option("--json", help="Write one JSON object a line.")]


def print_result(result: dict[str, Any], line: str, *, as_json: bool) -> None:
    """Print a result as one JSON object, or else as a line without control characters. Do not buffer it."""
    print(json.dumps(result) if as_json else replace_unprintable(line), flush=True)

"""The options that commands share, so that all commands spell and explain them alike."""

from typing import Annotated

import typer

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATHS",
        help="Files, folders (recursively), storage URLs, or - for paths on stdin, ended by newline or NUL.",
    ),
]
Out = Annotated[
    str, typer.Option("--out", "-o", metavar="DIR", help="Folder or storage URL for the results.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Write one JSON object a line to stdout, the summary last.")
]
Match = Annotated[
    list[str] | None,
    typer.Option("--match", metavar="GLOB", help="The names to read in folders, instead of the usual ones."),
]
Queue = Annotated[
    str | None, typer.Option("--queue", metavar="NAME", help="Send to this queue instead of the kind's own.")
]
Roots = Annotated[
    list[str] | None,
    typer.Option(
        "--root",
        metavar="DIR",
        help="A further folder or storage URL that this command's own workers may use (for paths on stdin).",
    ),
]

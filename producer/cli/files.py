"""One command for each file operation: `millpond files thumbnail PHOTOS... --out DIR`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from millpond.producer.cli.options import Json, Match, Out, Paths, Queue, Roots
from millpond.tasks.errors import BadInput
from millpond.tasks.files.endings import ARCHIVE_ENDINGS, DOCUMENT_ENDINGS, IMAGE_ENDINGS, TABLE_FORMATS

app = typer.Typer(
    help="Run an operation over files, and wait for the results.",
    no_args_is_help=True,
    epilog="Example: millpond files thumbnail holiday/ --out thumbs",
)

Quality = Annotated[int, typer.Option(help="1 (small) to 100 (like the original).")]
Background = Annotated[str, typer.Option(help="What shows through where the format has no transparency.")]


@app.command(epilog="Example: millpond files checksum photos/ --algorithm sha256 > SHA256SUMS")
def checksum(
    ctx: typer.Context,
    paths: Paths,
    algorithm: Annotated[str, typer.Option(help="sha256, sha512, sha1, md5 or blake2b.")] = "sha256",
    match: Match = None,
    queue: Queue = None,
    root: Roots = None,
    as_json: Json = False,
) -> None:
    """Print the digest of each file, as sha256sum does."""
    _run_file_command(ctx, "files.checksum", locals(), title="checksums", suffixes=())


@app.command(epilog="Example: millpond files thumbnail photos/ --out thumbs --width 640 --height 640")
def thumbnail(
    ctx: typer.Context,
    paths: Paths,
    out: Out,
    width: Annotated[int, typer.Option(help="Pixels, at most.")] = 320,
    height: Annotated[int, typer.Option(help="Pixels, at most.")] = 320,
    format: Annotated[
        str | None, typer.Option(help="jpeg, png, webp or avif (default: that of the input, or else jpeg).")
    ] = None,
    quality: Quality = 82,
    background: Background = "#ffffff",
    match: Match = None,
    queue: Queue = None,
    root: Roots = None,
    as_json: Json = False,
) -> None:
    """Make a small image of each image."""
    _run_file_command(ctx, "files.thumbnail", locals(), title="thumbnails", suffixes=IMAGE_ENDINGS)


@app.command(epilog="Example: millpond files convert scans/ --format webp --out web")
def convert(
    ctx: typer.Context,
    paths: Paths,
    out: Out,
    format: Annotated[str, typer.Option(help="jpeg, png, webp or avif.")],
    quality: Quality = 82,
    background: Background = "#ffffff",
    match: Match = None,
    queue: Queue = None,
    root: Roots = None,
    as_json: Json = False,
) -> None:
    """Write each image in another format, upright, in sRGB and without its metadata."""
    _run_file_command(ctx, "files.convert", locals(), title="images", suffixes=IMAGE_ENDINGS)


@app.command(epilog="Example: millpond files parquet exports/ --out tables --compression zstd")
def parquet(
    ctx: typer.Context,
    paths: Paths,
    out: Out,
    format: Annotated[str | None, typer.Option(help="csv or jsonl (default: by extension).")] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="What stands between the columns of a CSV (default: a tab for .tsv, else a comma)."
        ),
    ] = None,
    encoding: Annotated[str, typer.Option(help="Encoding of the input.")] = "utf-8",
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="COLUMN=TYPE",
            help="A column's type instead of the one found: string, int64, float64, bool, date or timestamp.",
        ),
    ] = None,
    compression: Annotated[str, typer.Option(help="zstd, snappy, gzip, lz4 or none.")] = "zstd",
    match: Match = None,
    queue: Queue = None,
    root: Roots = None,
    as_json: Json = False,
) -> None:
    """Turn each CSV or JSONL file into Parquet."""
    parameters = {**locals(), "types": dict(map(_parse_column_type, types)) if types else None}
    _run_file_command(ctx, "files.parquet", parameters, title="tables", suffixes=tuple(TABLE_FORMATS))


@app.command("pdf-text", epilog="Example: millpond files pdf-text papers/ --out text")
def pdf_text(
    ctx: typer.Context,
    paths: Paths,
    out: Out,
    password_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File whose first line opens encrypted PDFs.")
    ] = None,
    match: Match = None,
    queue: Queue = None,
    root: Roots = None,
    as_json: Json = False,
) -> None:
    """Write the text of each PDF as UTF-8, a form feed between pages."""
    parameters = {**locals(), "password": None if password_file is None else _read_password(password_file)}
    del parameters["password_file"]
    _run_file_command(ctx, "files.pdf_text", parameters, title="texts", suffixes=DOCUMENT_ENDINGS)


@app.command(epilog="Example: find logs -name '*.log' -print0 | millpond files compress - --out packed")
def compress(
    ctx: typer.Context,
    paths: Paths,
    out: Out,
    level: Annotated[int, typer.Option(help="1 (quick) to 19 (small).")] = 3,
    match: Match = None,
    queue: Queue = None,
    root: Roots = None,
    as_json: Json = False,
) -> None:
    """Compress each file with zstd."""
    _run_file_command(ctx, "files.compress", locals(), title="files", suffixes=())


@app.command(epilog="Example: millpond files unpack downloads/*.zip --out unpacked")
def unpack(
    ctx: typer.Context,
    paths: Paths,
    out: Out,
    encoding: Annotated[
        str | None,
        typer.Option(help="Encoding of the entries' names where they are no UTF-8, such as cp437."),
    ] = None,
    match: Match = None,
    queue: Queue = None,
    root: Roots = None,
    as_json: Json = False,
) -> None:
    """Unpack each archive (zip; tar, plain or compressed) into a folder of its own."""
    _run_file_command(ctx, "files.unpack", locals(), title="archives", suffixes=ARCHIVE_ENDINGS)


def _parse_column_type(text: str) -> tuple[str, str]:
    """Return the column and the type of a `--type COLUMN=TYPE`. Raises `BadInput`."""
    column, sign, type_ = text.rpartition("=")
    if not sign:
        raise BadInput(f"--type {text!r} has no '=': give COLUMN=TYPE, such as id=string")
    return column, type_


def _read_password(file: Path) -> str:
    """Return the first line of a password file. Raises `BadInput` if the file is not UTF-8."""
    try:
        return file.read_text().split("\n", 1)[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise BadInput(f"--password-file {file} is not UTF-8: convert it") from None


def _run_file_command(
    ctx: typer.Context, kind: str, parameters: dict[str, Any], *, title: str, suffixes: tuple[str, ...]
) -> None:
    """Run the operation of a command, and exit with its code.

    `parameters` are the parameters of the command. Those that are not shared by all file commands are fields
    of the contract. Without `--match`, the files of a folder are those with one of the suffixes.
    """
    from millpond.producer.cli.operation import Operation, run_operation

    shared = {"ctx", "paths", "out", "match", "queue", "root", "as_json"}
    operation = Operation(
        kind=kind,
        title=title,
        fields={
            name: value for name, value in parameters.items() if name not in shared and value is not None
        },
        patterns=tuple(parameters["match"] or ()) or tuple(f"*{suffix}" for suffix in suffixes),
        out=parameters.get("out"),
        queue=parameters["queue"],
        roots=tuple(parameters["root"] or ()),
        as_json=parameters["as_json"],
    )
    raise typer.Exit(run_operation(ctx.obj, operation, parameters["paths"]))

"""The contracts of the file tasks, and their results.

`source` and `target` are storage URLs (`s3://bucket/key`, `file:///data/caf%E9.jpg`), absolute paths, or
paths relative to the first configured root. `file_url` makes such a text of any local path.
"""

import os
import unicodedata
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from millpond.tasks.contract import Contract
from millpond.tasks.files.endings import IMAGE_FORMATS, ImageFormat, TableFormat

Algorithm = Literal["sha256", "sha512", "sha1", "md5", "blake2b"]
ColumnType = Literal["string", "int64", "float64", "bool", "date", "timestamp"]
Encoding = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,40}$")]
Codec = Literal["zstd", "snappy", "gzip", "lz4", "none"]


def _refuse_control_characters(text: str) -> str:
    """Return the text. Raises `ValueError` for a control character, which could break a log line."""
    if any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in text):
        raise ValueError("must hold no control character: percent-encode it in a file:// URL")
    return text


def _parse_delimiter(text: str) -> str:
    r"""Return the one character that separates columns. A tab may be written as `\t` or `tab`."""
    text = "\t" if text in (r"\t", "tab") else text
    if len(text) != 1 or not text.isascii() or text in '"\r\n\0':
        raise ValueError(r"must be one ASCII character other than a quote or a line end; a tab is '\t'")
    return text


Url = Annotated[
    str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_refuse_control_characters)
]
Delimiter = Annotated[str, StringConstraints(min_length=1, max_length=3), AfterValidator(_parse_delimiter)]


def file_url(path: str | os.PathLike[str]) -> str:
    """Return a local path for a contract: the absolute path, or a file:// URL if JSON cannot have its name.

    Python has surrogates in a name that is no UTF-8, and JSON has none.
    """
    folder, name = os.path.split(os.fspath(path))
    if name in ("", ".", ".."):
        folder, name = os.fspath(path), ""
    # The folder is resolved, because a '..' is refused later. A link as the last name is not resolved.
    absolute = Path(os.path.realpath(folder), name)
    text = str(absolute)
    try:
        text.encode()
        return _refuse_control_characters(text)
    except ValueError:
        return absolute.as_uri()


class Checksum(Contract, kind="files.checksum", queue="files"):
    """Return the digest of a file."""

    source: Url
    algorithm: Algorithm = "sha256"


class _Conversion(Contract):
    """The fields of every operation that reads one file and writes another."""

    source: Url
    target: Url

    @model_validator(mode="after")
    def _check_target_differs(self) -> "_Conversion":
        """Raise `ValueError` if the target is the source."""
        if self.source == self.target:
            raise ValueError(
                "target must differ from source: a second run would read what the first one wrote"
            )
        return self


class _Image(_Conversion):
    """The fields of the image operations. Without `format`, the target's extension decides."""

    format: ImageFormat | None = None
    #: From 1, the smallest file, to 100, the best image. A PNG loses nothing, and ignores it.
    quality: Annotated[int, Field(ge=1, le=100)] = 82
    #: The colour behind transparent parts if the target's format has no transparency.
    background: Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")] = "#ffffff"

    @property
    def target_format(self) -> ImageFormat:
        """The format to write."""
        return self.format or IMAGE_FORMATS[PurePosixPath(self.target).suffix.lower()]

    @model_validator(mode="after")
    def _check_format(self) -> "_Image":
        """Raise `ValueError` if neither `format` nor the target's extension names a format."""
        if self.format is None and PurePosixPath(self.target).suffix.lower() not in IMAGE_FORMATS:
            raise ValueError(f"target must end in one of {', '.join(IMAGE_FORMATS)}, or format be given")
        return self


class Thumbnail(_Image, kind="files.thumbnail", queue="files"):
    """Make an image that fits a box of width x height pixels, never larger than the original."""

    width: Annotated[int, Field(ge=1, le=16_384)] = 320
    height: Annotated[int, Field(ge=1, le=16_384)] = 320


class ConvertImage(_Image, kind="files.convert", queue="files"):
    """Write an image in another format, upright, in sRGB and without its metadata."""


class ToParquet(_Conversion, kind="files.parquet", queue="files"):
    """Turn a CSV or JSONL file into Parquet, in constant memory.

    The types of columns that `types` does not name are inferred. Without `format`, the source's extension
    decides.
    """

    format: TableFormat | None = None
    #: The delimiter between the columns of a CSV: a tab if the source's name ends in .tsv, else a comma.
    delimiter: Delimiter | None = None
    encoding: Encoding = "utf-8"
    compression: Codec = "zstd"
    #: The most rows of a row group. A group that takes much memory has fewer.
    row_group_rows: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    types: Annotated[dict[str, ColumnType], Field(max_length=4096)] = Field(default_factory=dict)


class PdfText(_Conversion, kind="files.pdf_text", queue="files"):
    """Write the text of a PDF as UTF-8, with a form feed between pages."""

    password: Annotated[str, StringConstraints(max_length=256)] | None = Field(default=None, repr=False)


class Compress(_Conversion, kind="files.compress", queue="files"):
    """Compress a file with zstd."""

    level: Annotated[int, Field(ge=1, le=19)] = 3


class Unpack(_Conversion, kind="files.unpack", queue="files"):
    """Unpack a zip, or a tar, which may be compressed by gzip, bzip2, xz or zstd, into a new folder.

    `encoding` is the encoding of the entries' names that are not UTF-8.
    """

    encoding: Encoding | None = None


class _Result(BaseModel):
    """A result of a file task. `source` and `target` are as the contract has them."""

    model_config = ConfigDict(frozen=True)


class FileResult(_Result):
    """The file that was written, and its length in bytes."""

    target: str
    bytes: int


class ChecksumResult(_Result):
    """The digest of a file in hexadecimal, and the file's length in bytes."""

    source: str
    bytes: int
    algorithm: Algorithm
    digest: str


class ImageResult(FileResult):
    """The image that was written, its format, and its size in pixels."""

    format: ImageFormat
    width: int
    height: int


class TableResult(FileResult):
    """The table that was written, and the numbers of its rows and columns."""

    rows: int
    columns: int


class TextResult(FileResult):
    """The text that was written, its length in characters, and the number of pages of the document.

    `note` is the reason if text is missing; None if every page has text.
    """

    pages: int
    characters: int
    note: str | None = None


class FolderResult(_Result):
    """The folder that was written: the number of its regular files, and the sum of their bytes."""

    target: str
    files: int
    bytes: int

"""The endings of the names of files that are read and written.

The command line searches folders by them. A handler takes the format of a target or table from them.
"""

from collections.abc import Iterable
from typing import Literal

ImageFormat = Literal["jpeg", "png", "webp", "avif"]
TableFormat = Literal["csv", "jsonl"]

#: The format of an image that is written, by its ending.
IMAGE_FORMATS: dict[str, ImageFormat] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".avif": "avif",
}
#: Endings of images that can be read. The content decides the format.
IMAGE_ENDINGS = (*IMAGE_FORMATS, ".heic", ".heif", ".hif", ".gif", ".tif", ".tiff", ".bmp")
#: The format of a table by its ending, and the delimiter of its columns if the contract names none.
TABLE_FORMATS: dict[str, tuple[TableFormat, str]] = {
    ".csv": ("csv", ","),
    ".tsv": ("csv", "\t"),
    ".tab": ("csv", "\t"),
    ".jsonl": ("jsonl", ""),
    ".ndjson": ("jsonl", ""),
}
_TAR_COMPRESSIONS = ("gz", "bz2", "xz", "zst")
#: Endings of archives that can be read, the longer ones first. The content decides the format.
ARCHIVE_ENDINGS = (
    *(f".tar.{compression}" for compression in _TAR_COMPRESSIONS),
    *(".tgz", ".tbz2", ".tbz", ".txz", ".tzst", ".tar", ".zip"),
)
DOCUMENT_ENDINGS = (".pdf",)


def find_ending(name: str, endings: Iterable[str]) -> str | None:
    """Return the first of these endings with which a name or URL ends. Return None if there is none.

    The endings are in lower case, and those of the name may be in upper case.
    """
    lower_name = name.lower()
    return next((ending for ending in endings if lower_name.endswith(ending)), None)

"""The endings of the files that are read and written, for the search of folders and for handlers."""

from collections.abc import Iterable
from typing import Literal

ImageFormat = Literal["jpeg", "png", "webp", "avif"]
TableFormat = Literal["csv", "jsonl"]

#: The format of a target, by its ending.
IMAGE_TARGETS: dict[str, ImageFormat] = {
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".png": "png",
    ".webp": "webp",
    ".avif": "avif",
}
#: Endings of images that can be read. The content decides the format.
IMAGES = (*IMAGE_TARGETS, ".heic", ".heif", ".hif", ".gif", ".tif", ".tiff", ".bmp")
#: The format of a table, and the delimiter of its columns if the contract names none.
TABLES: dict[str, tuple[TableFormat, str]] = {
    ".csv": ("csv", ","),
    ".tsv": ("csv", "\t"),
    ".tab": ("csv", "\t"),
    ".jsonl": ("jsonl", ""),
    ".ndjson": ("jsonl", ""),
}
_TAR_COMPRESSIONS = ("gz", "bz2", "xz", "zst")
#: Endings of archives that can be read, the longer ones first. The content decides the format.
ARCHIVES = (
    *(f".tar.{compression}" for compression in _TAR_COMPRESSIONS),
    *(".tgz", ".tbz2", ".tbz", ".txz", ".tzst", ".tar", ".zip"),
)
DOCUMENTS = (".pdf",)


def known_ending(name: str, endings: Iterable[str]) -> str | None:
    """Return the first of these endings that a name or URL has, in any case. Return None if it has none."""
    lower_name = name.lower()
    return next((ending for ending in endings if lower_name.endswith(ending)), None)

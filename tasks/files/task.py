"""The handlers of the file tasks. The module of an operation is imported when the operation is first run.

So a child process loads only the libraries that its tasks need, and libvips is not loaded before a fork.
"""

from importlib import import_module
from typing import Any

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.files.contract import (
    Checksum,
    Compress,
    ConvertImage,
    PdfText,
    Thumbnail,
    ToParquet,
    Unpack,
)
from millpond.tasks.files.storage import storage
from millpond.tasks.handlers import handler

#: The module of each operation, and the function in it that does the work.
_OPERATIONS: dict[type[Contract], tuple[str, str]] = {
    Checksum: ("millpond.tasks.files.checksum", "compute_checksum"),
    Thumbnail: ("millpond.tasks.files.images", "make_thumbnail"),
    ConvertImage: ("millpond.tasks.files.images", "convert_image"),
    Compress: ("millpond.tasks.files.compression", "compress"),
    ToParquet: ("millpond.tasks.files.tables", "to_parquet"),
    PdfText: ("millpond.tasks.files.pdf", "extract_text"),
    Unpack: ("millpond.tasks.files.archives", "unpack"),
}


def _declare_handler(contract: type[Contract], module: str, function: str) -> None:
    """Declare the handler of an operation, which imports the module at its first run."""

    @handler(contract)
    def run_operation(job: Any, context: Context) -> Any:
        return getattr(import_module(module), function)(job, storage(), context)


for _contract, _place in _OPERATIONS.items():
    _declare_handler(_contract, *_place)

"""The handlers of the file tasks. The module of an operation is imported when the operation is first run.

So a child process loads only the libraries that its tasks need, and libvips is not loaded before a fork.
"""

from millpond.tasks.context import Context
from millpond.tasks.files.contract import (
    Checksum,
    ChecksumResult,
    Compress,
    ConvertImage,
    FileResult,
    FolderResult,
    ImageResult,
    PdfText,
    TableResult,
    TextResult,
    Thumbnail,
    ToParquet,
    Unpack,
)
from millpond.tasks.files.storage import storage
from millpond.tasks.handlers import handler


@handler(Checksum)
def checksum_file(job: Checksum, context: Context) -> ChecksumResult:
    """Return the digest and the length of a file."""
    from millpond.tasks.files import checksum

    return checksum.compute_checksum(job, storage(), context)


@handler(Thumbnail)
def make_thumbnail(job: Thumbnail, context: Context) -> ImageResult:
    """Write an image that is scaled down to fit a box."""
    from millpond.tasks.files import images

    return images.make_thumbnail(job, storage(), context)


@handler(ConvertImage)
def convert_image(job: ConvertImage, context: Context) -> ImageResult:
    """Write an image in another format."""
    from millpond.tasks.files import images

    return images.convert_image(job, storage(), context)


@handler(Compress)
def compress(job: Compress, context: Context) -> FileResult:
    """Write a file compressed with zstd."""
    from millpond.tasks.files import compression

    return compression.compress(job, storage(), context)


@handler(ToParquet)
def to_parquet(job: ToParquet, context: Context) -> TableResult:
    """Write a CSV or JSONL file as Parquet."""
    from millpond.tasks.files import tables

    return tables.to_parquet(job, storage(), context)


@handler(PdfText)
def extract_pdf_text(job: PdfText, context: Context) -> TextResult:
    """Write the text of a PDF."""
    from millpond.tasks.files import pdf

    return pdf.extract_text(job, storage(), context)


@handler(Unpack)
def unpack(job: Unpack, context: Context) -> FolderResult:
    """Unpack an archive into a new folder."""
    from millpond.tasks.files import archives

    return archives.unpack(job, storage(), context)

"""Read a file in chunks: progress is reported, and a cancelled task stops between two of them."""

from collections.abc import Iterator
from typing import BinaryIO

from millpond.tasks.context import Context
from millpond.tasks.files.storage import file_length

CHUNK_BYTES = 1024 * 1024


def read_chunks(file: BinaryIO, context: Context) -> Iterator[bytes]:
    """Yield the whole file in pieces of `CHUNK_BYTES`, the last one shorter. Report progress in bytes."""
    total, done = file_length(file), 0
    while True:
        context.checkpoint()
        chunk = file.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
        done += len(chunk)
        context.progress(done, total)

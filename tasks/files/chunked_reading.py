"""Read a file in chunks, with reports of progress. A cancelled task stops between two chunks."""

from collections.abc import Iterator
from typing import BinaryIO

from millpond.tasks.context import Context
from millpond.tasks.files.storage import measure_and_rewind

CHUNK_BYTES = 1024 * 1024


def read_chunks(file: BinaryIO, context: Context) -> Iterator[bytes]:
    """Yield a whole file in chunks of `CHUNK_BYTES`; the last may be shorter. Report progress in bytes.

    Raises `Cancelled`.
    """
    total, done = measure_and_rewind(file), 0
    while True:
        context.checkpoint()
        chunk = file.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
        done += len(chunk)
        context.progress(done, total)

"""Read a file piece by piece, telling how far it got and stopping where the task was cancelled."""

from collections.abc import Iterator
from typing import BinaryIO

from millpond.tasks.context import Context
from millpond.tasks.files.storage import length_of

CHUNK_BYTES = 1024 * 1024


def chunks(file: BinaryIO, context: Context) -> Iterator[bytes]:
    """Yield the whole file in pieces of `CHUNK_BYTES`, the last one shorter; report progress in bytes."""
    total, done = length_of(file), 0
    while True:
        context.checkpoint()
        chunk = file.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
        done += len(chunk)
        context.progress(done, total)

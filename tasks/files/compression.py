"""Compress a file with zstd, in constant memory and to the same bytes on each run.

The output depends only on the input, the level and the library's version: one thread compresses, and the
frame has no time or name. The frame begins with the length of the content and ends with its checksum, so a
truncated file is recognized.
"""

import zstandard

from millpond.tasks.context import Context
from millpond.tasks.errors import RetryLater
from millpond.tasks.files.chunked_reading import read_chunks
from millpond.tasks.files.contract import Compress, FileResult
from millpond.tasks.files.storage import Storage, measure_and_rewind


def compress(job: Compress, storage: Storage, context: Context) -> FileResult:
    """Write the source to the target as one zstd frame. An empty file becomes an empty frame.

    Raises `RetryLater` if the source changes its length meanwhile.
    """
    storage.refuse_same_file(job.source, job.target)
    with storage.open_input(job.source) as source, storage.open_output(job.target) as target:
        length = measure_and_rewind(source)
        frame = zstandard.ZstdCompressor(level=job.level, write_checksum=True).compressobj(size=length)
        bytes_read = 0
        for chunk in read_chunks(source, context):
            bytes_read += len(chunk)
            if bytes_read > length:
                break
            target.write(frame.compress(chunk))
        if bytes_read != length:
            raise RetryLater(f"{job.source} changed while it was read: it is tried again when it is at rest")
        target.write(frame.flush())
        return FileResult(target=job.target, bytes=target.tell())

"""Compress a file with zstd, in constant memory and to the same bytes each time.

One thread and a frame without time stamp or name make the output a function of the input, the level and the
library's version. The frame ends with a checksum of the content and begins with its length, so that a cut
file is noticed.
"""

import zstandard

from millpond.tasks.context import Context
from millpond.tasks.errors import RetryLater
from millpond.tasks.files.contract import Compress, FileResult
from millpond.tasks.files.copy_loop import read_chunks
from millpond.tasks.files.storage import Storage, file_length


def compress(job: Compress, storage: Storage, context: Context) -> FileResult:
    """Write the source as one zstd frame. An empty file becomes an empty frame."""
    storage.refuse_same(job.source, job.target)
    with storage.open_input(job.source) as source, storage.open_output(job.target) as target:
        length = file_length(source)
        frame = zstandard.ZstdCompressor(level=job.level, write_checksum=True).compressobj(size=length)
        read = 0
        for chunk in read_chunks(source, context):
            read += len(chunk)
            if read > length:
                break
            target.write(frame.compress(chunk))
        if read != length:
            raise RetryLater(f"{job.source} changed while it was read: it is tried again when it is at rest")
        target.write(frame.flush())
        return FileResult(target=job.target, bytes=target.tell())

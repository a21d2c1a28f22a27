"""Compute the checksum of a file in constant memory."""

import hashlib

from millpond.tasks.context import Context
from millpond.tasks.files.chunked_reading import read_chunks
from millpond.tasks.files.contract import Checksum, ChecksumResult
from millpond.tasks.files.storage import Storage


def compute_checksum(job: Checksum, storage: Storage, context: Context) -> ChecksumResult:
    """Return the digest of the source, which may be empty. Progress is in bytes."""
    digest = hashlib.new(job.algorithm, usedforsecurity=False)
    length = 0
    with storage.open_input(job.source) as file:
        for chunk in read_chunks(file, context):
            digest.update(chunk)
            length += len(chunk)
    return ChecksumResult(source=job.source, bytes=length, algorithm=job.algorithm, digest=digest.hexdigest())

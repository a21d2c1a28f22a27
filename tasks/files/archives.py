"""Unpack an archive into a new folder, which appears when it is complete.

Only regular files and folders are made, without the archive's owners, modes and times. An archive with a
link, a device, an entry that comes twice or a name that leads out of the folder is refused as a whole: nobody
would notice a missing entry. An archive in an archive is not unpacked.
"""

from collections.abc import Iterator
from typing import BinaryIO, cast

from millpond.tasks.context import Context
from millpond.tasks.errors import BadInput
from millpond.tasks.files import tars, zips
from millpond.tasks.files.archive_limits import Entry, EntryNames, Quota
from millpond.tasks.files.contract import FolderResult, Unpack
from millpond.tasks.files.decompression import DecompressedStream, Readable
from millpond.tasks.files.folders import Folder
from millpond.tasks.files.magic_numbers import HEAD_BYTES, describe_head, detect_format
from millpond.tasks.files.storage import Storage, measure_and_rewind

_COMPRESSED = ("gzip", "bzip2", "xz", "zstd")


def unpack(job: Unpack, storage: Storage, context: Context) -> FolderResult:
    """Unpack `job.source` into the new folder `job.target`. Progress is in bytes of the archive.

    Raises `BadInput` with the entry at fault, and `TooLarge` over a limit. There is no folder then.
    """
    with storage.open_input(job.source, empty_allowed=False) as file:
        length = measure_and_rewind(file)
        quota = Quota(storage.limits, length, job.source)
        names = EntryNames(quota)
        entries = _read_entries(file, job, quota)
        with storage.output_folder(job.target) as folder:
            for entry in entries:
                quota.count_entry()
                path = names.add_entry(entry)
                for _ in _write_entry(folder, path, entry, quota):
                    context.checkpoint()
                    context.progress(min(file.tell(), length), length)
        return FolderResult(target=job.target, files=quota.files, bytes=quota.bytes)


def _read_entries(file: BinaryIO, job: Unpack, quota: Quota) -> Iterator[Entry]:
    """Return the entries of an archive, whose content decides the format. Raises `BadInput`."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    archive_format = detect_format(head)
    if archive_format == "zip":
        return zips.read_entries(file, job.source, job.encoding, quota.limits)
    if archive_format in _COMPRESSED:
        stream_name = f"{job.source}, {archive_format} as its first bytes say,"
        stream = DecompressedStream(cast(Readable, file), archive_format, stream_name)
        return tars.read_entries(stream, job.source, job.encoding, quota)
    if archive_format == "tar" or tars.is_tar(head):
        return tars.read_entries(cast(Readable, file), job.source, job.encoding, quota)
    if zips.is_zip(file):
        return zips.read_entries(file, job.source, job.encoding, quota.limits)
    raise BadInput(
        f"{job.source} is no archive that is unpacked here (zip, tar, tar.gz …): {describe_head(head)}"
    )


def _write_entry(folder: Folder, path: str, entry: Entry, quota: Quota) -> Iterator[None]:
    """Write an entry below the folder. Yield after each chunk, and at the end."""
    if entry.chunks is None:
        if path:
            folder.make_folder(path)
        yield
        return
    quota.files += 1
    with folder.create_file(path) as output:
        for chunk in entry.chunks:
            quota.count_bytes(len(chunk))
            output.write(chunk)
            yield
    yield

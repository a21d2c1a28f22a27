"""Where the writable data of this process's libraries lies, so that a lock has the name of its library."""

import struct
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

#: The data is looked for again after these seconds: more libraries may have been loaded.
MAPS_SECONDS = 10.0
#: The type of a segment of a library that is loaded into memory (elf(5), PT_LOAD).
_LOADED_SEGMENT = 1


def data_of_libraries() -> tuple[tuple[int, int, str], ...]:
    """Return the writable data of this process's program and libraries: start, end and file name.

    They are read again every `MAPS_SECONDS`.
    """
    return _read_data_of_libraries(int(time.monotonic() / MAPS_SECONDS))


@lru_cache(maxsize=1)
def _read_data_of_libraries(_period: int) -> tuple[tuple[int, int, str], ...]:
    """Read the writable data of libraries: that from the file, and the zeroed data that follows it.

    Other memory without a name may follow at once, such as that of Python's objects. So the zeroed data ends
    where the file says.
    """
    parts, end, library, library_end = list[tuple[int, int, str]](), -1, "", 0
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            span, mode, offset, _device, _inode, *path = line.split(maxsplit=5)
            low, high = (int(address, 16) for address in span.split("-"))
            if path and path[0] != library:
                library, library_end = path[0], low - int(offset, 16) + _size_in_memory(path[0])
            elif not path and low != end:
                library = ""
            end = high
            data_end = high if path else min(high, library_end)
            if "w" in mode and library.startswith("/") and low < data_end:
                parts.append((low, data_end, library.rpartition("/")[2]))
    return tuple(parts)


@lru_cache(maxsize=1_000)
def _size_in_memory(path: str) -> int:
    """Return the number of bytes that a library takes in memory, or 0 for a file that is no library.

    Source: the program headers of elf(5).
    """
    with suppress(OSError, struct.error, ValueError), Path(path).open("rb") as file:
        table, size, count = struct.unpack("=32xQ14xHH6x", file.read(64))
        file.seek(table)
        headers = [struct.unpack("=I12xQ16xQ8x", file.read(size)) for _ in range(count)]
        segments = [(int(start), int(length)) for kind, start, length in headers if kind == _LOADED_SEGMENT]
        return max(start + length for start, length in segments) - min(start for start, _ in segments)
    return 0

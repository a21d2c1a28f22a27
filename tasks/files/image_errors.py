"""Translate the errors of libvips into those of tasks: is the image damaged, unsupported, or not at fault?"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from millpond.tasks.errors import BadInput, FinalError, RetryLater
from millpond.tasks.files.escaping import escape_untrusted
from millpond.tasks.files.vips import libvips

#: Lines of an error that do not come from the reader of the image: those of the writer, and file names.
_NOT_THE_READER = re.compile(
    r"^(/|\(|unable to (call|write)|vips2|\w*save\w*:|wbuffer|target|.*unable to write to target)"
)
_UNSUPPORTED = re.compile(
    r"not (been )?(supported|built|configured|implemented|compiled)|unsupported|bad labq|not a known|"
    r"unknown (compression|photometric|codec)|no decoding plugin",
    re.IGNORECASE,
)
_NO_MEMORY = re.compile(r"out of memory|unable to allocate|cannot allocate|memory allocation", re.IGNORECASE)


@contextmanager
def translate_reader_errors(url: str, *, target_format: str = "") -> Iterator[None]:
    """Turn an error of libvips in the `with` block into the error of a task about the image `url`.

    `target_format` is the format that the block writes; "" if it only reads. libvips decodes while it
    encodes, so an error of such a block is the writer's only if the reader has no line in it.
    """
    vips = libvips()
    try:
        yield
    except vips.Error as error:
        raise _task_error(url, target_format, error) from error
    except EOFError as error:
        raise _damaged_error(url, str(error)) from error


def unsupported_error(url: str, reason: str) -> BadInput:
    """Return the error for an image that may be valid, but is not supported."""
    return BadInput(f"{url} is not supported here: {reason}; convert it first")


def _task_error(url: str, target_format: str, error: Exception) -> FinalError | RetryLater:
    """Return the task error for an error of libvips: no memory, not writable, not supported, or damaged."""
    # The first line is pyvips's own; libvips's lines follow.
    lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
    reader_lines = [line for line in lines if not _NOT_THE_READER.match(line)]
    reason = escape_untrusted((reader_lines or lines or ["its reader gives no reason"])[0])
    if _NO_MEMORY.search(str(error)):
        return RetryLater(f"{url}: no memory left to decode it: give the worker more ({reason})")
    if lines and not reader_lines and target_format:
        return FinalError(f"{url} cannot be written as {target_format}: {reason}")
    for line in reader_lines:
        if _UNSUPPORTED.search(line):
            return unsupported_error(url, escape_untrusted(line))
    return _damaged_error(url, reason)


def _damaged_error(url: str, reason: str) -> BadInput:
    return BadInput(f"{url} is damaged or cut short: get it again from where it came from ({reason})")

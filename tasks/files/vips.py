"""Load libvips for untrusted input: few loaders, one thread, no cache, never before a fork.

libvips starts threads, and a process forked from one that used it waits for them for ever. So it is loaded
by the first image handler that a child process runs, and refuses to work in a process forked after that.
"""

import logging
import os
from functools import cache
from typing import Any

#: The only formats that are read, with libvips's class for each; SVG and raw files are not among them.
LOADERS = {
    "jpegload": "VipsForeignLoadJpeg",
    "pngload": "VipsForeignLoadPng",
    "webpload": "VipsForeignLoadWebp",
    "gifload": "VipsForeignLoadNsgif",
    "tiffload": "VipsForeignLoadTiff",
    "heifload": "VipsForeignLoadHeif",
}


def libvips() -> Any:
    """Return the pyvips module, set up. Raises `RuntimeError` in a process forked from one that used it."""
    module, process = _set_up()
    if process != os.getpid():
        raise RuntimeError(
            "libvips was used before this process was forked, and would hang here: use it in the child only"
        )
    return module


@cache
def _set_up() -> tuple[Any, int]:
    """Import pyvips and set it up for untrusted input. Return pyvips and the id of this process."""
    import pyvips

    # It logs every step of libvips, and each damaged tile of a picture that is refused whole.
    logging.getLogger("pyvips").setLevel(logging.ERROR)
    pyvips.concurrency_set(1)  # a slot is one core
    # Operations are cached by file name, and /proc/self/fd/7 is another image in the next task.
    pyvips.cache_set_max(0)
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in LOADERS.values():
        pyvips.operation_block_set(loader, False)
    return pyvips, os.getpid()

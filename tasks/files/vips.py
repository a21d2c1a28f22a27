"""Load libvips for untrusted input: few loaders, one thread, no cache, never before a fork.

libvips starts threads, for which a process forked later would wait forever. So it is loaded by the first
image handler that a child process runs, and is refused in a process that is forked from that one.
"""

import logging
import os
from functools import cache
from typing import Any

#: libvips's classes of the loaders that are allowed. There is none for SVG and for raw files.
_LOADERS = [f"VipsForeignLoad{name}" for name in ("Jpeg", "Png", "Webp", "Nsgif", "Tiff", "Heif")]


def libvips() -> Any:
    """Return the pyvips module. Raises `RuntimeError` in a process forked from one that used it."""
    pyvips, pid = _load_pyvips()
    if pid != os.getpid():
        raise RuntimeError(
            "libvips was used before this process was forked, and would hang here: use it in the child only"
        )
    return pyvips


@cache
def _load_pyvips() -> tuple[Any, int]:
    """Import pyvips and configure it for untrusted input. Return the module and the id of this process."""
    import pyvips

    # It logs every step of libvips, and each damaged tile of an image that is refused anyway.
    logging.getLogger("pyvips").setLevel(logging.ERROR)
    pyvips.concurrency_set(1)  # a slot is one core
    # Operations are cached by file name, and /proc/self/fd/7 is another image in the next task.
    pyvips.cache_set_max(0)
    pyvips.operation_block_set("VipsForeignLoad", True)
    for loader in _LOADERS:
        pyvips.operation_block_set(loader, False)
    return pyvips, os.getpid()

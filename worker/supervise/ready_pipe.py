"""Start a child process that reports through a pipe that it is ready."""

import os
import subprocess
from collections.abc import Callable
from typing import Any

from millpond.worker.supervise.parent_death import with_parent_death_signal


def start_with_ready_pipe(
    command: Callable[[int], list[str]], **options: Any
) -> "tuple[subprocess.Popen[bytes], int]":
    """Start a process in a session of its own. The kernel kills it if this process is killed.

    `command(ready_fd)` returns its command line. It writes to the descriptor `ready_fd` once it is ready.
    `options` are further options of `Popen`. Return the process, and the end of the pipe to read from.
    """
    read_end, write_end = os.pipe()
    try:
        process = subprocess.Popen(
            with_parent_death_signal(command(write_end)),
            pass_fds=[write_end],
            stdin=subprocess.DEVNULL,
            # Ctrl-C reaches only this process, which stops its children in order and can kill their groups.
            start_new_session=True,
            **options,
        )
    except BaseException:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return process, read_end

"""Terminate a child process: SIGTERM, wait, then SIGKILL."""

import subprocess
from time import monotonic


def terminate(process: "subprocess.Popen[bytes]", *, within_seconds: float) -> None:
    """Send SIGTERM and wait for the end of the process. Kill it after `within_seconds`.

    A Ctrl-C meanwhile sends SIGTERM again.
    """
    deadline = monotonic() + within_seconds
    process.terminate()
    while True:
        try:
            process.wait(max(0.0, deadline - monotonic()))
            return
        except KeyboardInterrupt:
            process.terminate()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return

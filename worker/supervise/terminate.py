"""End a child process: ask, wait, and kill it at the end of the time."""

import subprocess
from time import monotonic


def end(process: "subprocess.Popen[bytes]", *, within_seconds: float) -> None:
    """Ask the process to end and wait until it has; every Ctrl-C meanwhile asks it again."""
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

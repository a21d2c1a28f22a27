"""Parent-death signals: when the parent is killed, the kernel signals the child (prctl(2), PR_SET_PDEATHSIG).

`with_parent_death_signal(argv)` is the command to start instead of `argv`. It runs this file in a bare
interpreter, which requests the signal from the kernel and then becomes `argv`. So nothing runs between fork
and exec in a parent that has threads. The kernel watches the *thread* that started the child: start children
from a thread that lives as long as they must. This works on Linux only. On other systems the child gets no
signal.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def with_parent_death_signal(
    argv: Sequence[str], *, on_parent_death: signal.Signals = signal.SIGKILL
) -> list[str]:
    """Return the command that runs `argv`. It receives `on_parent_death` when this process dies."""
    own_arguments = str(os.getpid()), str(int(on_parent_death))
    return [sys.executable, "-I", "-S", __file__, *own_arguments, *argv]


def set_parent_death_signal(on_parent_death: int, *, parent_pid: int) -> None:
    """Request from the kernel that this process receives a signal when its parent dies.

    `parent_pid` is the expected process id of the parent. If the parent has another id, the expected one is
    dead, and the signal is sent now.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(on_parent_death), 0, 0, 0)
    # The parent may have died before the request. Then the kernel would send nothing.
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), on_parent_death)


if __name__ == "__main__":
    set_parent_death_signal(int(sys.argv[2]), parent_pid=int(sys.argv[1]))
    os.execvp(sys.argv[3], sys.argv[3:])

"""The processes that a prefork child's tasks have started: killed with the child, reaped when they end.

A child adopts its orphans (prctl(2), PR_SET_CHILD_SUBREAPER), so every process that a task starts stays below
it, also if it was forked twice or is in another session. This works on Linux only. On other systems the child
dies alone.
"""

import ctypes
import gc
import math
import multiprocessing.popen_fork
import os
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from time import monotonic

_PR_SET_CHILD_SUBREAPER = 36

#: The least time between two looks for orphans that have ended.
REAP_SECONDS = 1.0

#: Looks for processes that were started between the last look and when their parent was stopped.
_LOOKS = 20


#: The time of the next reaping of orphans, between two tasks (monotonic seconds); infinite if none are
#: adopted.
reap_at = math.inf


def become_subreaper() -> None:
    """Become the parent of every process below this one whose own parent ends."""
    global reap_at
    reap_at = 0.0
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans() -> None:
    """Reap ended processes that nothing here waits for. Called between tasks, from `reap_at` on.

    A process that a `Popen` of this process waits for is left to it, with its exit code.
    """
    global reap_at
    reap_at = monotonic() + REAP_SECONDS
    with suppress(ChildProcessError):  # there is no child
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in _children_with_popen():
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def _children_with_popen() -> set[int]:
    """Return the process ids of children that Python code still waits for."""
    kinds = subprocess.Popen, multiprocessing.popen_fork.Popen
    return {
        each.pid for each in gc.get_objects() if issubclass(type(each), kinds) and each.returncode is None
    }


def kill_with_descendants(pid: int) -> None:
    """Kill a process and every process below it.

    All are stopped first: none starts another, or is handed to another parent, while they are listed.
    """
    family = [pid]
    _send_signal(pid, signal.SIGSTOP)
    for _ in range(_LOOKS):
        new = [each for each in _descendants_of(pid) if each not in family]
        if not new:
            break
        for each in new:
            _send_signal(each, signal.SIGSTOP)
        family += new
    for each in reversed(family):
        _send_signal(each, signal.SIGKILL)


def _send_signal(pid: int, number: int) -> None:
    """Send a signal to a process, if it still runs and belongs to this user."""
    with suppress(ProcessLookupError, PermissionError):  # it has ended, or runs as another user
        os.kill(pid, number)


def _descendants_of(pid: int) -> list[int]:
    """Return the processes below a process, parents first, or [] if the kernel does not show them."""
    children = defaultdict[int, list[int]](list)
    with suppress(OSError):
        for folder in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                stat = (folder / "stat").read_text() if folder.name.isdigit() else ""
                if stat:
                    children[int(stat.rpartition(")")[2].split()[1])].append(int(folder.name))
    pids = list(children[pid])
    for each in pids:  # grows meanwhile
        pids += children[each]
    return pids

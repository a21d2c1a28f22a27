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

import billiard.popen_fork

_PR_SET_CHILD_SUBREAPER = 36

#: The least time between two reapings of orphans.
REAP_SECONDS = 1.0

#: The maximum of listings of the processes below one. A process may start another before it is stopped, so
#: the list is repeated until it shows nothing new.
_LISTINGS = 20

#: The time of the next reaping of orphans, between two tasks (monotonic seconds); infinite if none are
#: adopted.
reap_at = math.inf


def become_subreaper() -> None:
    """Make this process adopt every process below it whose own parent ends, and reap them from now on."""
    global reap_at
    reap_at = 0.0
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans() -> None:
    """Reap ended child processes, and set `reap_at` to the time of the next call. Called between tasks.

    Stops at the first ended process that has a `Popen` object: that object must get its exit code.
    """
    global reap_at
    reap_at = monotonic() + REAP_SECONDS
    with suppress(ChildProcessError):  # there is no child
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in _pids_of_popen_objects():
                return
            os.waitpid(ended.si_pid, os.WNOHANG)


def _pids_of_popen_objects() -> set[int]:
    """Return the process ids of the `Popen` objects of this process that have no exit code yet."""
    popen_types = subprocess.Popen, multiprocessing.popen_fork.Popen, billiard.popen_fork.Popen
    popens = (object_ for object_ in gc.get_objects() if issubclass(type(object_), popen_types))
    return {popen.pid for popen in popens if popen.returncode is None}


def kill_with_descendants(pid: int) -> None:
    """Kill a process and every process below it.

    All are stopped first, so that none starts another, and none gets another parent, while they are listed.
    """
    family = [pid]
    _send_signal(pid, signal.SIGSTOP)
    for _ in range(_LISTINGS):
        new = [descendant for descendant in _descendants_of(pid) if descendant not in family]
        if not new:
            break
        for descendant in new:
            _send_signal(descendant, signal.SIGSTOP)
        family += new
    for member in reversed(family):
        _send_signal(member, signal.SIGKILL)


def _send_signal(pid: int, number: int) -> None:
    """Send a signal to a process, if it still runs and belongs to this user."""
    with suppress(ProcessLookupError, PermissionError):  # it has ended, or runs as another user
        os.kill(pid, number)


def _descendants_of(pid: int) -> list[int]:
    """Return the ids of all processes below a process, parents first. The list is empty without /proc."""
    children = defaultdict[int, list[int]](list)
    with suppress(OSError):
        for folder in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                stat = (folder / "stat").read_text() if folder.name.isdigit() else ""
                if stat:
                    children[int(stat.rpartition(")")[2].split()[1])].append(int(folder.name))
    pids = list(children[pid])
    for descendant in pids:  # the list grows in the loop
        pids += children[descendant]
    return pids

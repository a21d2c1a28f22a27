"""A child process that has ended when it is terminated."""

import os
import sys

from millpond.worker.supervise.child_process import ChildProcess


def test_terminating_an_ended_process_does_not_reap_it() -> None:
    """Otherwise the supervisor would not learn of its end, and would start no other."""
    child = ChildProcess("email", 1, lambda _ready_fd: [sys.executable, "-c", ""])
    pid = child.start()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    child.terminate()
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    assert found is not None
    assert found.si_pid == pid
    assert child.reap() == 0

"""A process of a pool that ends at the moment when somebody signals it."""

import os
import sys

from millpond.worker.supervise.child_process import ChildProcess


def test_one_that_has_just_ended_is_left_to_be_buried() -> None:
    """A signal to a process that has ended does not reap it: its end would go unseen, nobody would follow."""
    child = ChildProcess("email", 1, lambda _ready_fd: [sys.executable, "-c", ""])
    pid = child.start()
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    child.terminate()
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    assert found is not None
    assert found.si_pid == pid
    assert child.reap() == 0

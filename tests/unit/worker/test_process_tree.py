"""The reaping of orphans leaves the children of a task's own `Popen` objects to these."""

import subprocess
import sys

import pytest

PROGRAM = """
import os
from {package} import get_context
from millpond.worker.supervise.process_tree import reap_orphans

process = get_context("fork").Process(target=os._exit, args=(3,))
process.start()
os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
reap_orphans()
print(process.exitcode, process.is_alive())
"""


@pytest.mark.parametrize("package", ["multiprocessing", "billiard"])
def test_a_process_of_a_package_for_processes_keeps_its_exit_code(package: str) -> None:
    """A prefork child may start processes by billiard alone: it is a daemon, and Python's own refuses one."""
    program = PROGRAM.format(package=package)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "3 False\n", ran.stderr

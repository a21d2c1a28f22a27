"""The supervisor, with processes that misbehave in ways a worker rarely does: cheap shells in their place."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import Alive, Eventually

#: Supervise shells that run the script given, with the stop deadline given, as a program of its own. While
#: there is a file of the name given none can be started, as where the system has no process left to give.
PROGRAM = """
import errno, os, sys
from millpond.worker.supervise.child_process import ChildProcess
from millpond.worker.supervise.supervisor import Supervisor, log_to_stderr

def command(ready_fd):
    if os.path.exists(sys.argv[3]):
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
    return ["/bin/sh", "-c", sys.argv[1].replace("READY", str(ready_fd))]

log_to_stderr("plain")
sys.exit(Supervisor([ChildProcess("p", n, command) for n in (1, 2)], float(sys.argv[2])).run())
"""
OBEDIENT = "echo >&READY; exec sleep 60"
DEAF = 'trap "" TERM; echo >&READY; sleep 600 & wait; wait'
WITH_A_CHILD = "echo >&READY; sleep 60 & wait"


@pytest.fixture
def supervise(tmp_path: Path, eventually: Eventually) -> Iterator[Callable[..., "Shells"]]:
    """Start supervisors of two shells each; they are ready, unless `ready` is false."""
    started: list[Shells] = []

    def start(script: str, stop_seconds: float = 30, *, ready: bool = True) -> Shells:
        log = tmp_path / "log"
        with log.open("wb") as sink:
            argv = [sys.executable, "-c", PROGRAM, script, str(stop_seconds), str(tmp_path / "none-left")]
            shells = Shells(subprocess.Popen(argv, stderr=sink), log)
        started.append(shells)
        eventually(lambda: not ready or shells.logged("takes messages") == 2)
        return shells

    yield start
    for shells in started:
        if shells.process.poll() is None:
            shells.process.kill()
            shells.process.wait()


class Shells:
    """A running supervisor of shells."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    def logged(self, words: str) -> int:
        return self._log.read_text().count(words)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


def test_one_that_does_not_listen_is_killed_at_the_deadline(
    supervise: Callable[..., Shells], alive: Alive
) -> None:
    """With processes that ignore its signals the supervisor ends at its deadline, with 1, and leaves none."""
    shells = supervise(DEAF, stop_seconds=0.5)
    family = shells.family()
    shells.process.terminate()
    assert shells.process.wait(60) == 1
    assert shells.logged("SIGTERM: draining 2 processes, at most 0 s") == 1  # it knows of no tasks
    assert shells.logged("killed; its messages in flight are delivered again") == 2
    assert not alive(family)


def test_children_of_a_dead_process_end_with_it(
    supervise: Callable[..., Shells], eventually: Eventually, alive: Alive
) -> None:
    """A process that is killed takes along its own children, and is replaced; the log says why."""
    shells = supervise(WITH_A_CHILD)
    eventually(lambda: len(shells.family()) == 4)
    shell = psutil.Process(shells.process.pid).children()[0]
    (orphan,) = shell.children()
    shell.kill()
    eventually(lambda: shells.logged("takes messages") == 3)
    assert shells.logged(f"pid={shell.pid} was killed by SIGKILL")
    assert shells.logged("restarting it") == 1
    eventually(lambda: not alive([orphan]))


def test_one_that_dies_at_once_is_not_started_in_a_loop(
    supervise: Callable[..., Shells], eventually: Eventually
) -> None:
    """A process that dies at its start is restarted at growing intervals; the log has every end."""
    shells = supervise("exit 3", ready=False)
    eventually(lambda: shells.logged("ended with exit code 3; restarting it in 1.0 s") == 2)
    assert shells.logged("started") == 4
    shells.process.terminate()
    assert shells.process.wait(60) == 0


def test_one_that_cannot_start_as_it_is_set_up_ends_all(supervise: Callable[..., Shells]) -> None:
    """A lasting fault of one process is logged once, and not tried again; the other processes end too."""
    shells = supervise("[ $(( $$ % 2 )) = 0 ] || sleep 0.5; exit 78", ready=False)
    assert shells.process.wait(60) == 2
    assert shells.logged("exit code 78 before it took messages: correct the error above, then") == 1
    assert (shells.logged("started"), shells.logged("restarting it")) == (2, 0)


def test_one_that_cannot_start_any_more_is_tried_again(
    supervise: Callable[..., Shells], eventually: Eventually, tmp_path: Path
) -> None:
    """A pool at work goes on with its processes while one cannot start again; the module may be mended."""
    broken = tmp_path / "broken"
    shells = supervise(f"[ -e {broken} ] && exit 78; {OBEDIENT}")
    broken.touch()
    shells.family()[0].kill()
    eventually(lambda: shells.logged("exit code 78; restarting it"))
    broken.unlink()
    eventually(lambda: shells.logged("takes messages") == 3)


def test_one_that_cannot_be_started_now_is_tried_again_and_the_others_work_on(
    supervise: Callable[..., Shells], eventually: Eventually, tmp_path: Path
) -> None:
    """Where the system has no process or descriptor to give, the running processes go on."""
    shells = supervise(OBEDIENT)
    (tmp_path / "none-left").touch()
    dying, other = shells.family()
    dying.kill()
    eventually(lambda: shells.logged("cannot be started: Resource temporarily unavailable") >= 2)
    assert other.is_running()
    (tmp_path / "none-left").unlink()
    eventually(lambda: shells.logged("takes messages") == 3)
    shells.process.terminate()
    assert shells.process.wait(60) == 0


def test_hangup_replaces_every_process(supervise: Callable[..., Shells], eventually: Eventually) -> None:
    """SIGHUP: each process is asked to end and followed by a new one, without a wait."""
    shells = supervise(OBEDIENT)
    before = {each.pid for each in shells.family()}
    shells.process.send_signal(signal.SIGHUP)
    eventually(lambda: shells.logged("takes messages") == 4)
    assert shells.logged("restarting it in 0.0 s") == 2
    assert not before & {each.pid for each in shells.family()}


def test_interrupt_drains_like_terminate(supervise: Callable[..., Shells]) -> None:
    """Ctrl-C on `millpond worker` ends it as SIGTERM does."""
    shells = supervise(OBEDIENT)
    shells.process.send_signal(signal.SIGINT)
    assert shells.process.wait(60) == 0

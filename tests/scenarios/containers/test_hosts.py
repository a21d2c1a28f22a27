"""Hosts that fail under load: no accepted task is lost, and every repeat is explained.

Two containers a pool, one of threads and one of prefork children; the first of each pool is the one that
suffers. The ledger lies on a network that no fault touches.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic, sleep, time

import pytest

from millpond.broker.connection import connect
from millpond.tasks.pools import Queue
from tests.conftest import Eventually
from tests.scenarios.containers import ledger
from tests.scenarios.containers.images import run
from tests.scenarios.containers.ledger import Fault
from tests.scenarios.containers.load import Load
from tests.scenarios.containers.stack import Stack, inspect

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
POOLS = ("worker-default", "worker-files")
QUEUES = ("default", "files")
LEASE_SECONDS = Queue().lease_seconds


@pytest.fixture(scope="module")
def victims(stack: Stack, eventually: Eventually) -> Iterator[list[str]]:
    """Run two containers a pool and return the ids of the first ones; back to one each in the end."""
    stack.up(worker_default=2, worker_files=2)
    for pool in POOLS:
        eventually(lambda pool=pool: stack.is_healthy(pool), 120, every_seconds=0.5)
    yield [stack.containers(pool)[0] for pool in POOLS]
    stack.up(worker_default=1, worker_files=1)


@pytest.fixture
def load(stack: Stack, eventually: Eventually) -> Iterator[Load]:
    """Send 40 tasks a second while the test does harm; then wait for the last and look for missing ones."""
    load = Load(stack.broker_url, QUEUES, rate=40, hold_seconds=0.05)
    with load:
        eventually(lambda: len(load.taken) > 40, 30)
        yield load
        taken = len(load.taken)
        eventually(lambda: len(load.taken) > taken + 80, 60)
    load.finish(eventually, 120)
    found = ledger.runs(stack.ledger_url, load.taken | load.unknown)
    assert ledger.lost(load.taken, found) == []


def hosts(containers: list[str]) -> list[str]:
    """Return the host names of containers, as their processes see them."""
    return [inspect(id, "{{.Config.Hostname}}") for id in containers]


def repeated(stack: Stack, load: Load, fault: Fault, eventually: Eventually) -> int:
    """Wait until all that was sent so far has run; return the repeats, all explained by the fault."""
    taken = set(load.taken)
    eventually(lambda: not ledger.lost(taken, ledger.runs(stack.ledger_url, taken)), 120, every_seconds=0.5)
    count, unexplained = ledger.repeats(ledger.runs(stack.ledger_url, taken), [fault])
    assert unexplained == []
    return count


@contextmanager
def paused(container: str) -> Iterator[None]:
    """Pause a container; where the kernel does not freeze its group of processes, stop each of them."""
    try:
        run("docker", "pause", container)
    except AssertionError:
        signal_all(container, signal.SIGSTOP)
        yield
        signal_all(container, signal.SIGCONT)
    else:
        yield
        run("docker", "unpause", container)
    assert inspect(container, "{{.State.Status}}") == "running"


def signal_all(container: str, number: signal.Signals) -> None:
    """Send a signal to every process of a container."""
    for pid in run("docker", "top", container, "-o", "pid").split()[1:]:
        os.kill(int(pid), number)


def wait(seconds: float) -> None:
    """Wait until a fault has lasted its time."""
    sleep(seconds)


def test_a_killed_container(stack: Stack, victims: list[str], load: Load, eventually: Eventually) -> None:
    """A worker's container that is killed comes back, and its tasks in flight run elsewhere."""
    before = [inspect(id, "{{.RestartCount}}") for id in victims]
    begins = time()
    for id in victims:
        os.kill(int(inspect(id, "{{.State.Pid}}")), signal.SIGKILL)
    fault = Fault("kill", begins, time(), hosts(victims))
    repeated(stack, load, fault, eventually)
    assert [inspect(id, "{{.RestartCount}}") for id in victims] != before
    for pool in POOLS:
        eventually(lambda pool=pool: stack.is_healthy(pool), 120, every_seconds=0.5)


def test_a_stopped_container(stack: Stack, victims: list[str], load: Load, eventually: Eventually) -> None:
    """`docker stop` of a busy worker ends with exit code 0; nothing is lost, and nothing runs twice."""
    begun = monotonic()
    run("docker", "stop", *victims)
    took = monotonic() - begun
    assert [inspect(id, "{{.State.ExitCode}}") for id in victims] == ["0", "0"]
    assert repeated(stack, load, Fault("none", 0, 0, ["nobody"]), eventually) == 0
    run("docker", "start", *victims)
    print(f"stopped in {took:.1f} s")


def test_a_paused_container(stack: Stack, victims: list[str], load: Load, eventually: Eventually) -> None:
    """A container paused past its lease loses its messages to other workers, and goes on when it wakes."""
    begins = time()
    with ExitStack() as pauses:
        for id in victims:
            pauses.enter_context(paused(id))
        wait(LEASE_SECONDS + 5)
    print(f"{repeated(stack, load, Fault('pause', begins, time(), hosts(victims)), eventually)} repeats")


def test_a_cut_network(stack: Stack, victims: list[str], load: Load, eventually: Eventually) -> None:
    """A host cut off for a minute loses its messages to other workers, and works again once joined."""
    network = f"{stack.project}_default"
    begins = time()
    for id in victims:
        run("docker", "network", "disconnect", network, id)
    wait(60)
    for id in victims:
        run("docker", "network", "connect", network, id)
    joined, cut = time(), hosts(victims)
    print(f"{repeated(stack, load, Fault('cut', begins, joined, cut), eventually)} repeats")

    def back() -> bool:
        found = ledger.runs(stack.ledger_url, load.taken)
        return {run.host for many in found.values() for run in many if run.started > joined} >= set(cut)

    eventually(back, 60, every_seconds=0.5)


def test_a_killed_broker(stack: Stack, victims: list[str], load: Load, eventually: Eventually) -> None:
    """Valkey, killed under load, comes back with its volume; the producer's own record finds all it took."""
    begins = time()
    os.kill(int(inspect(stack.container("valkey"), "{{.State.Pid}}")), signal.SIGKILL)
    store = connect(stack.broker_url, timeout_seconds=1)

    def answers() -> bool:
        try:
            return bool(store.client.ping())
        except Exception:
            return False

    eventually(answers, 60, every_seconds=0.1)
    store.close()
    print(f"{repeated(stack, load, Fault('broker', begins, time()), eventually)} repeats")

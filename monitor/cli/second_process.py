"""A second worker process beside a pool of one slot, while the pool is measured."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import typer

from millpond.broker.connection import Store
from millpond.broker.stats import heartbeats
from millpond.tasks.errors import BadInput, MillpondError

#: The time in which it has to be ready, and in which it finishes its task at the end, seconds.
READY_SECONDS, STOP_SECONDS = 120.0, 120.0
#: Seconds that it has to run before its pool is measured.
RUN_SECONDS = 5.0


@contextmanager
def second_process(store: Store, pool: str) -> Iterator[None]:
    """Run `millpond worker POOL` here, with the settings of this command, until the block is left."""
    before = _count_slots(store, pool)
    if before != 1:
        raise BadInput(f"--second-slot is for a pool of one slot; {pool} has {before}: leave it out")
    typer.echo(f"Starting a second worker process of pool {pool} …", err=True)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "millpond", "worker", pool], stdout=log, stderr=log
        )
        before_term = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the process has to end too
        try:
            until = monotonic() + READY_SECONDS
            while _count_slots(store, pool) == before:
                if process.poll() is not None or monotonic() > until:
                    log.seek(0)
                    said = log.read().decode(errors="replace").strip().rpartition("\n")[2]
                    raise MillpondError(f"the second worker process of {pool} is not ready; its log: {said}")
                sleep(0.2)
            sleep(RUN_SECONDS)
            yield
        finally:
            signal.signal(signal.SIGTERM, before_term)
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _count_slots(store: Store, pool: str) -> int:
    return sum(each.slots for each in heartbeats.read_processes(store) if each.pool == pool)

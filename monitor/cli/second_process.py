"""Run a second worker process beside a pool of one slot, while the pool is measured."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import typer

from millpond.broker.connection import Store
from millpond.broker.stats.heartbeats import count_slots
from millpond.tasks.errors import BadInput, MillpondError

#: The longest time until the process is ready, and until it has finished its task at the end.
READY_SECONDS, STOP_SECONDS = 120.0, 120.0

#: The time for which the process has to run before its pool is measured.
RUN_SECONDS = 5.0


@contextmanager
def second_process(store: Store, pool: str) -> Iterator[None]:
    """Run `millpond worker POOL` here, with the settings of this command, for the length of a `with` block.

    The block is entered when the process has run for a while. Raises `BadInput` if the pool has not exactly
    one slot, and `MillpondError` if the process does not become ready. SIGTERM to this command ends the
    process too.
    """
    slots = count_slots(store, pool)
    if slots != 1:
        raise BadInput(f"--second-slot is for a pool of one slot; {pool} has {slots}: leave it out")
    typer.echo(f"Starting a second worker process of pool {pool} …", err=True)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "millpond", "worker", pool], stdout=log, stderr=log
        )
        previous_handler = signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        try:
            deadline = monotonic() + READY_SECONDS
            while count_slots(store, pool) <= slots:
                if process.poll() is not None or monotonic() > deadline:
                    log.seek(0)
                    line = log.read().decode(errors="replace").strip().rpartition("\n")[2]
                    raise MillpondError(f"the second worker process of {pool} is not ready; its log: {line}")
                sleep(0.2)
            sleep(RUN_SECONDS)
            yield
        finally:
            signal.signal(signal.SIGTERM, previous_handler)
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

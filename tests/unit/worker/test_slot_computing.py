"""A slot computes where its thread does, or a thread, a child or a program that it waits for."""

import asyncio
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable

import psutil
import pytest

from millpond.broker.stats.window import Place
from tests.harness.sampled_slots import COMPUTES, Slots, largest_place, sample_until


def compute_until(done: threading.Event) -> None:
    """Compute in Python."""
    while not done.is_set():
        sum(range(1000))


def test_slots_that_compute_share_the_interpreter(slots: Slots) -> None:
    """Threads that compute are in turn on a processor, waiting for one, or for the interpreter."""
    done = threading.Event()

    def share(places: dict[Place, float]) -> bool:
        seen = {place.category: share for place, share in places.items()}
        return seen.get("processor", 0) > 0.02 and sum(seen.get(each, 0) for each in COMPUTES) > 0.7

    for _ in range(3):
        slots.run(lambda: compute_until(done))
    try:
        sample_until(slots, share)
    finally:
        done.set()


def test_a_child_program_that_computes_is_told_from_one_that_waits(slots: Slots) -> None:
    """A slot whose child program computes is computing; one whose child sleeps waits for the child."""
    burn = [sys.executable, "-S", "-c", "while True: pass"]
    for argv, category in ((burn, "processor"), (["sleep", "60"], "child")):
        with subprocess.Popen(argv) as child:
            slots.run(child.wait)
            try:
                sample_until(slots, lambda places: largest_place(places).category == category)  # noqa: B023
            finally:
                child.kill()


async def _run_program(*words: str) -> None:
    await (await asyncio.create_subprocess_exec(*words)).wait()


@pytest.mark.parametrize(
    "run",
    [
        lambda *burn: os.system(f"sh -c {shlex.quote(shlex.join(burn) + ' | cat')}"),
        lambda *burn: os.system(f"exec {shlex.join(burn)}"),
        lambda *burn: asyncio.run(_run_program(*burn)),
    ],
    ids=["a pipeline", "a program", "a program of an event loop"],
)
def test_a_program_that_a_child_started_is_found(slots: Slots, run: Callable[..., object]) -> None:
    """A slot computes if a program computes that its child has started, also by `os.system` or asyncio."""
    slots.run(lambda: run("timeout", "60", sys.executable, "-S", "-c", "while True: pass"))
    try:
        sample_until(slots, lambda places: largest_place(places).name == "child programs")
    finally:
        for child in psutil.Process().children(recursive=True):
            child.kill()


def test_threads_of_a_c_library_that_compute_count_as_computing(slots: Slots) -> None:
    """Slots whose matrices wait for each other inside the library wait for processors, not for a lock."""
    numpy = pytest.importorskip("numpy")
    done = threading.Event()

    def multiply() -> None:
        matrix = numpy.ones((300, 300))
        while not done.is_set():
            matrix = matrix @ matrix * 1e-6

    for _ in range(4):
        slots.run(multiply)
    try:
        sample_until(
            slots, lambda places: sum(places[each] for each in places if each.category in COMPUTES) > 0.8
        )
    finally:
        done.set()


def test_processes_of_a_handler_that_compute_count_as_computing(slots: Slots) -> None:
    """A slot that waits for an event of its threads, whose child program computes, is computing."""
    with subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) as child:
        slots.run(lambda: threading.Thread(target=child.wait).start() or threading.Event().wait(60))
        try:
            sample_until(slots, lambda places: largest_place(places).name == "child programs")
        finally:
            child.kill()


def test_threads_of_a_handler_that_compute_count_as_computing(slots: Slots) -> None:
    """A slot that waits for a thread of its handler computes while the thread does, else it waits."""
    done = threading.Event()

    for work, category in ((lambda: compute_until(done), "processor"), (done.wait, "thread")):
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        slots.run(thread.join)
        sample_until(slots, lambda places: largest_place(places).category == category)  # noqa: B023
        done.set()
        thread.join()
        done.clear()

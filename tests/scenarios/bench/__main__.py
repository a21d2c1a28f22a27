"""Print Millpond beside stock Celery: `python -m tests.scenarios.bench [--rounds N] [--tasks N]`.

Each round measures both, one after the other, on one private server. The table shows medians over the rounds,
and the ratio of each pair. Other programs on this machine slow down both sides of a pair alike, so quote the
ratios.
"""

import argparse
import platform
import tempfile
from collections import defaultdict
from pathlib import Path

from millpond.worker.local.valkey import run_server
from tests.scenarios.bench.measure import (
    PREFORK,
    THREADS,
    Drained,
    Executor,
    drain,
    latency_ms,
    publish_bulk,
    publish_single,
)
from tests.scenarios.bench.table import Figures, print_table

SYSTEMS = ("stock", "pond")


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument("--only", default="", help="measure only what has this in its name, such as prefork")
    parser.add_argument(
        "--tasks", type=int, default=20_000, help="tasks a drain of Millpond; stock gets a fifth"
    )
    asked = parser.parse_args()
    figures: Figures = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder:
        for number in range(asked.rounds):
            with run_server(Path(folder) / f"server-{number}", extra=["appendonly no"]) as server:
                _round(server.url, asked.tasks, Path(folder), figures, asked.only)
            print(f"round {number + 1} of {asked.rounds} done", flush=True)
    print(f"\nPython {platform.python_version()}, medians; the ratio is the median of the rounds' ratios\n")
    print_table(figures, {"stock": "stock", "pond": "millpond"}, width=52)


def _round(url: str, tasks: int, folder: Path, figures: Figures, only: str) -> None:
    for executor in (PREFORK, THREADS):
        if only in executor.name:
            _drains(url, executor, tasks, folder, figures)
            _latencies(url, executor, folder, figures)
    if only in "publish":
        _publishing(url, tasks, figures)


def _drains(url: str, executor: Executor, tasks: int, folder: Path, figures: Figures) -> None:
    for events in (False, True):
        name = f"{executor.name}{', events on' if events else ''}"
        for system in SYSTEMS:
            count = tasks if system == "pond" else tasks // 5
            _note(
                figures, system, name, drain(system, url, executor, tasks=count, events=events, folder=folder)
            )


def _latencies(url: str, executor: Executor, folder: Path, figures: Figures) -> None:
    for system in SYSTEMS:
        middle, slow = latency_ms(system, url, executor, tasks=200, folder=folder)
        figures[f"{executor.name}: send to start, median ms", system].append(middle)
        figures[f"{executor.name}: send to start, p99 ms", system].append(slow)
        if system == "stock":
            ours = latency_ms("pond", url, executor, tasks=200, folder=folder, client_of="stock")
            for name, theirs, own in zip(("median", "p99"), (middle, slow), ours, strict=True):
                title = f"{executor.name}: a stock client's send to start, {name} ms"
                figures[title, "stock"].append(theirs)
                figures[title, "pond"].append(own)


def _publishing(url: str, tasks: int, figures: Figures) -> None:
    for system in SYSTEMS:
        figures["publish one by one, /s", system].append(publish_single(system, url, tasks=2_000))
    figures["publish in bulk (stock: a loop), /s", "stock"].append(
        figures["publish one by one, /s", "stock"][-1]
    )
    figures["publish in bulk (stock: a loop), /s", "pond"].append(publish_bulk(url, tasks=tasks))


def _note(figures: Figures, system: str, name: str, drained: Drained) -> None:
    figures[f"{name}: drained, /s", system].append(drained.per_second)
    figures[f"{name}: server commands a task", system].append(drained.commands_per_task)
    figures[f"{name}: bytes a task", system].append(drained.bytes_per_task)
    figures[f"{name}: CPU ms a thousand tasks", system].append(drained.cpu_ms_per_thousand)


if __name__ == "__main__":
    main()

"""Print what it costs to watch the workers.

`python -m tests.scenarios.bench.watching [--rounds N] [--tasks N] [--only threads]`

Each round drains the same number of tasks by the same workers in these ways: unwatched; without the sampler
of slots and without probes; with Flower (events on, at the rate that a worker sends by default); with Flower
and a request for a page and for `/metrics` every two seconds; and with tracing of all tasks, and of one in a
hundred, to a collector that drops the spans. Flower and the collector run on the same processors, so they are
part of the cost. Quote the ratios.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from statistics import median

from millpond.tasks.settings import Settings
from millpond.worker.local.valkey import run_server
from tests.harness.background import repeating
from tests.harness.flower_process import LOGIN, Visitor, run_flower_process
from tests.harness.own_server import free_port
from tests.scenarios.bench.measure import PREFORK, ROOT, THREADS, Drained, Executor, drain
from tests.scenarios.bench.table import Figures

WAYS = ("nobody", "no sampler", "Flower", "Flower and metrics", "tracing", "tracing 1 in 100")
UNSAMPLED = {"MILLPOND_SAMPLE_SLOTS": "false", "MILLPOND_PROBE_SHARE": "0"}
SAMPLED = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
#: The time between two requests for a page and for the metrics.
LOOK_SECONDS = 2.0
#: The loads: the run time of a task in ms, and the share of `--tasks` that is sent.
LOADS = ((0.0, 1.0), (5.0, 0.15))


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(prog="tests.scenarios.bench.watching", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds (default 3)")
    parser.add_argument(
        "--tasks", type=int, default=30_000, help="no-op tasks a drain; of 5 ms: three twentieths"
    )
    parser.add_argument("--only", default="", help="only the executor with this in its name, such as prefork")
    parser.add_argument("--way", default="", help="beside nobody only the ways with this in their name")
    parser.add_argument("--load", default="", help="only the load with this in its name: no-op, or 5 ms")
    asked = parser.parse_args()
    loads = [load for load in LOADS if asked.load in _name(load[0])]
    ways = [way for way in WAYS if way == "nobody" or asked.way in way]
    figures: Figures = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder:
        for number in range(asked.rounds):
            with run_server(Path(folder) / f"server-{number}", extra=["appendonly no"]) as server:
                for executor in (PREFORK, THREADS):
                    if asked.only in executor.name:
                        # The order is reversed in every other round, so that a machine that becomes slower
                        # favours no way.
                        turned = ways[:: -1 if number % 2 else 1]
                        _round(server.url, executor, asked.tasks, Path(folder), figures, turned, loads)
            print(f"round {number + 1} of {asked.rounds} done", flush=True)
    _table(figures, ways)


def _round(
    url: str,
    executor: Executor,
    tasks: int,
    folder: Path,
    figures: Figures,
    ways: Sequence[str],
    loads: Sequence[tuple[float, float]],
) -> None:
    for hold_ms, share in loads:
        for way in ways:
            with _watched(way, url) as more:
                drained = drain(
                    "pond",
                    url,
                    executor,
                    tasks=int(tasks * share),
                    events=way.startswith("Flower"),
                    folder=folder,
                    hold_ms=hold_ms,
                    more=more,
                )
            _note(figures, way, f"{executor.name}, {_name(hold_ms)}", drained)


def _name(hold_ms: float) -> str:
    return f"{hold_ms:g} ms" if hold_ms else "no-op"


@contextmanager
def _watched(way: str, url: str) -> Iterator[dict[str, str]]:
    """Watch in one of the `WAYS` for the length of a block, and yield variables for the workers."""
    if way.startswith("Flower"):
        chosen = Settings(broker_url=url, flower_basic_auth=(LOGIN,))
        with run_flower_process(chosen) as (page, _), _asking(page) if "metrics" in way else nullcontext():
            yield {"MILLPOND_TASK_EVENTS_PER_SECOND": str(chosen.task_events_per_second)}
    elif way.startswith("tracing"):
        port = free_port()
        collector = subprocess.Popen(
            [sys.executable, "-m", "tests.scenarios.bench.collector", str(port)], cwd=ROOT
        )
        try:
            endpoint = {"MILLPOND_TRACES_ENDPOINT": f"http://127.0.0.1:{port}/v1/traces"}
            yield endpoint | (SAMPLED if way.endswith("1 in 100") else {})
        finally:
            collector.kill()
            collector.wait()
    else:
        yield UNSAMPLED if way == "no sampler" else {}


def _asking(page: str) -> AbstractContextManager[None]:
    """Ask for a page and for the metrics, as an operator's browser and a Prometheus do."""
    visitor = Visitor(page)

    def ask() -> None:
        for path in ("/queues", "/metrics"):
            if visitor.get(path).status != 200:
                raise RuntimeError(f"Flower does not answer {path}")

    return repeating(ask, LOOK_SECONDS)


def _note(figures: Figures, way: str, name: str, drained: Drained) -> None:
    figures[f"{name}: drained, /s", way].append(drained.per_second)
    figures[f"{name}: CPU of workers, ms a thousand", way].append(drained.cpu_ms_per_thousand)


def _table(figures: Figures, ways: Sequence[str]) -> None:
    print("medians; in brackets the ratio to nobody watching, the median of the rounds' ratios\n")
    print(f"{'':52}" + "".join(f"{way:>26}" for way in ways))
    for name in dict.fromkeys(name for name, _ in figures):
        alone = figures[name, "nobody"]
        cells = []
        for way in ways:
            found = figures[name, way]
            ratio = median(b / a for a, b in zip(alone, found, strict=True))
            cells.append(f"{median(found):17.1f} ({ratio:4.2f}) ")
        print(f"{name:52}" + "".join(f"{cell:>26}" for cell in cells))


if __name__ == "__main__":
    main()

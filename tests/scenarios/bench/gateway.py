"""Print the gateway's figures beside those of a bare FastAPI route.

`python -m tests.scenarios.bench.gateway [--rounds N] [--seconds S]`

Each round measures both, one after the other, so quote the ratios. The last lines compare a stream of tasks
through the gateway, by curl, with `Client.send_many` in one process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psutil

from millpond.broker import limits
from millpond.producer.client import Client
from millpond.tasks.settings import Settings, child_environment
from millpond.tasks.squares.contract import Square
from millpond.worker.local.valkey import run_server
from tests.scenarios.bench.http_load import load
from tests.scenarios.bench.table import Figures, print_table

ROOT = Path(__file__).parents[3]
PORTS = {"bare": 18181, "gateway": 18182}
GATEWAY = "import sys, millpond; sys.exit(millpond.main())"
Processes = dict[str, psutil.Process]


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--tasks", type=int, default=30_000, help="tasks of a stream")
    asked = parser.parse_args()
    figures: Figures = defaultdict(list)
    with (
        tempfile.TemporaryDirectory(prefix="millpond-bench-") as folder,
        run_server(Path(folder), extra=["appendonly no"]) as server,
        Client(server.url) as client,
        _servers(server.url) as processes,
    ):
        limits.change_limits(client.store, "default", bound=10_000_000)
        for port in PORTS.values():
            load(port, connections=8, seconds=2)  # the first requests of a server take longer
        for _ in range(asked.rounds):
            _round(figures, processes, asked.seconds)
            client.store.client.delete("default")
            _streams(figures, client, asked.tasks, Path(folder))
            client.store.client.delete("default")
    print("medians; the ratio is the median of the rounds' ratios\n")
    print_table(figures, {system: system for system in PORTS}, width=48)


def _round(figures: Figures, processes: Processes, seconds: float) -> None:
    for connections in (1, 8, 64):
        for system, port in PORTS.items():
            before = _cpu_ms(processes[system])
            seen = load(port, connections=connections, seconds=seconds)
            used = (_cpu_ms(processes[system]) - before) / seen.answered
            figures[f"{connections} connections: CPU ms a request", system].append(used)
            figures[f"{connections} connections: requests, /s", system].append(seen.per_second)
            figures[f"{connections} connections: median ms", system].append(seen.median_ms)
            figures[f"{connections} connections: p99 ms", system].append(seen.p99_ms)


def _streams(figures: Figures, client: Client, tasks: int, folder: Path) -> None:
    """Measure `Client.send_many` for the column `bare`, and a stream through the gateway for its own."""
    at = time.monotonic()
    client.send_many(Square(n=n) for n in range(tasks))
    figures["a stream of tasks, /s (left: Client.send_many)", "bare"].append(tasks / (time.monotonic() - at))
    lines = folder / "lines"
    lines.write_text("".join(f'{{"kind":"squares.square","task":{{"n":{n}}}}}\n' for n in range(tasks)))
    command = ["curl", "-sSf", "-T", str(lines), "-XPOST", "-H", "Content-Type: application/x-ndjson"]
    at = time.monotonic()
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{PORTS['gateway']}/send"], capture_output=True, check=True
    )
    took = time.monotonic() - at
    if f'"accepted": {tasks}'.encode() not in done.stdout[-200:]:
        raise RuntimeError(done.stdout[-200:].decode())
    figures["a stream of tasks, /s (left: Client.send_many)", "gateway"].append(tasks / took)


@contextmanager
def _servers(url: str) -> Iterator[Processes]:
    commands = {
        "bare": [sys.executable, "-m", "tests.scenarios.bench.bare", str(PORTS["bare"])],
        "gateway": [sys.executable, "-c", GATEWAY, "gateway", "--port", str(PORTS["gateway"])],
    }
    env = {**os.environ, **child_environment(Settings(broker_url=url))}
    started = [
        subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
        for command in commands.values()
    ]
    try:
        for port in PORTS.values():
            _wait_for(port)
        yield {name: psutil.Process(process.pid) for name, process in zip(PORTS, started, strict=True)}
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


def _cpu_ms(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system) * 1000


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.connect()
            connection.close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    main()

"""Send a batch of a million squares and stream its results. Kill the reader half-way, and start it again.

The producer and the reader are processes of their own, which report their peak memory. The reader writes each
result with its position in one line. When it is started again, it goes on after the last whole line.
"""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from millpond.broker.inspect.depth import read_depth
from millpond.producer.client import Client
from millpond.tasks.settings import Settings, child_environment
from millpond.tasks.squares.contract import Square
from tests.harness.peak_memory import peak_mb
from tests.scenarios.evidence.setting import server, settings, workers

logger = logging.getLogger(__name__)

#: The bound of the queue: the producer waits while so many tasks wait.
BOUND = 1_000


def run(count: int, folder: Path) -> dict[str, Any]:
    """Run it with `count` tasks, and return the figures. Memory is in MB."""
    begun = time.monotonic()
    with server(folder) as url:
        chosen = settings(url, bound=BOUND, executor="threads", concurrency=4, prefetch=64)
        with workers(chosen, folder, count=2), Client(settings=chosen) as client:
            batch = client.batch("a million")
            producer = _start(chosen, "produce", batch.id, str(count))
            reader, lines = _start(chosen, "read", batch.id, str(folder / "results")), folder / "results"
            _wait_for_lines(lines, count // 2)
            reader.kill()
            reader.communicate()
            read_first = _lines(lines)
            resumed = _start(chosen, "read", batch.id, str(lines))
            produced, read = _ended(producer), _ended(resumed)
            summary = batch.summary()
            high_water = read_depth(client.store, "default").counters["high_water"]
            server_mb = client.store.client.info("memory")["used_memory_peak"] / 1e6
    missing, twice = _compare(lines, count)
    assert (missing, twice) == (0, 0), f"{missing} results missing, {twice} twice"
    assert high_water <= BOUND
    assert (summary.succeeded, summary.sent, summary.complete) == (count, count, True)
    return {
        "results": count,
        "killed after": read_first,
        "missing": missing,
        "twice": twice,
        "most that waited": high_water,
        "seconds": round(time.monotonic() - begun, 1),
        "producer peak MB": produced["peak_mb"],
        "producer at start MB": produced["start_mb"],
        "reader peak MB": read["peak_mb"],
        "reader at start MB": read["start_mb"],
        "server peak MB": round(server_mb),
    }


def produce(batch: str, count: int) -> None:
    """Send the squares into a batch, close it, and print the memory of this process as JSON."""
    with Client() as client:
        feeding, start = client.open_batch(batch), peak_mb()
        feeding.send_many(Square(n=n) for n in range(count))
        feeding.close()
    print(json.dumps({"start_mb": start, "peak_mb": peak_mb()}))


def read(batch: str, file: Path) -> None:
    """Append each result and its position to the file, from its last whole line on. Print the memory."""
    after = _keep_whole_lines(file)
    with Client() as client, file.open("a", buffering=1) as out:
        start = peak_mb()
        for result in client.open_batch(batch).results(after=after):
            out.write(f"{result.position} {result.value}\n")
    print(json.dumps({"start_mb": start, "peak_mb": peak_mb()}))


def _start(chosen: Settings, *words: str) -> "subprocess.Popen[str]":
    argv = [sys.executable, "-m", "tests.scenarios.evidence.million", *words]
    return subprocess.Popen(argv, env=child_environment(chosen), stdout=subprocess.PIPE, text=True)


def _ended(process: "subprocess.Popen[str]") -> dict[str, Any]:
    said, _ = process.communicate()
    assert process.returncode == 0, f"{process.args} ended with {process.returncode}"
    found: dict[str, Any] = json.loads(said)
    return found


def _wait_for_lines(file: Path, count: int) -> None:
    told = 0.0
    while (seen := _lines(file)) < count:
        if time.monotonic() - told > 30:
            told = time.monotonic()
            logger.info("%d results read", seen)
        time.sleep(0.2)


def _lines(file: Path) -> int:
    if not file.exists():
        return 0
    with file.open("rb") as opened:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: opened.read(1 << 20), b""))


def _keep_whole_lines(file: Path) -> str:
    """Remove a line that a killed reader left unfinished. Return the position of the last whole line."""
    if not file.exists() or not file.stat().st_size:
        return "0"
    with file.open("r+b") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - 4_096))
        tail = opened.read()
        whole = tail[: tail.rfind(b"\n") + 1]
        opened.truncate(size - len(tail) + len(whole))
    return whole.splitlines()[-1].split()[0].decode()


def _compare(file: Path, count: int) -> tuple[int, int]:
    """Return the number of squares that are missing, and of those that are there more than once."""
    roots = {n * n: n for n in range(count)}
    seen = bytearray(count)
    with file.open() as opened:
        for line in opened:
            seen[roots[int(line.split()[1])]] += 1
    return seen.count(0), sum(times > 1 for times in seen)


if __name__ == "__main__":
    what, batch_id, last = sys.argv[1:]
    if what == "produce":
        produce(batch_id, int(last))
    else:
        read(batch_id, Path(last))

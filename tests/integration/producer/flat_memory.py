"""Measure the memory of the command line while it sends many files or a large campaign, with real workers.

    python tests/integration/producer/flat_memory.py --files 10000 --recipients 100000

For each it prints the resident memory of the command (MB) at a tenth of the results and at the end, and its
peak. The tests run the same with fewer: see test_flat_memory.py.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psutil

from millpond.tasks.settings import Files, Settings, Smtp, child_environment
from millpond.worker.local.embedded import embedded
from tests.harness.mail_sink import mail_sink

MILLPOND = [sys.executable, "-m", "millpond"]


@dataclass(frozen=True)
class Memory:
    """The memory of a command: MB resident at a tenth and at the end, the peak, and the command's end."""

    results: int
    failed: int
    tenth_mb: float
    end_mb: float
    peak_mb: float
    seconds: float

    def __str__(self) -> str:
        held = (
            f"{self.tenth_mb:.1f} MB at a tenth, {self.end_mb:.1f} MB at the end, peak {self.peak_mb:.1f} MB"
        )
        return f"{held}; {self.failed} failed, {self.seconds:.0f} s"

    @property
    def growth_mb(self) -> float:
        """Return the memory added between a tenth and the end."""
        return self.end_mb - self.tenth_mb


@contextmanager
def fleet(root: Path, *, bound: int | None = None) -> Iterator[Settings]:
    """Run the pools for files and mail, and a mail server; `bound` replaces that of both queues."""
    queues = {name: {"bound": bound} for name in ("files", "email")} if bound else {}
    with mail_sink() as sink:
        settings = Settings(
            broker_url=None,
            drain_seconds=5,
            table={"queues": queues},
            files=Files(roots=(str(root),)),
            smtp=Smtp(host="127.0.0.1", port=sink.port),
        )
        with embedded(settings, pools=["files", "email"]) as running:
            yield running.settings


def files(settings: Settings, root: Path, count: int) -> Memory:
    """Take the checksums of `count` files in folders of a thousand."""
    for number in range(count):
        folder = root / "many" / f"{number // 1000:03}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:06}.txt").write_text(f"file {number}\n")
    return measured(settings, ["files", "checksum", str(root / "many"), "--json"], count)


def campaign(settings: Settings, root: Path, count: int) -> Memory:
    """Send a campaign to `count` recipients."""
    people = root / "people.csv"
    with people.open("w") as file:
        file.write("email,name\n")
        file.writelines(f"reader-{number}@example.org,Reader {number}\n" for number in range(count))
    words = ["--from", "a@example.org", "--subject", "Hello {{ name }}", "--text", "Dear {{ name }}"]
    return measured(settings, ["email", "campaign", str(people), *words, "--json"], count)


def measured(settings: Settings, arguments: Sequence[str], count: int) -> Memory:
    """Run a command, read the results that it prints, and measure its memory on the way."""
    began = monotonic()
    with subprocess.Popen(
        [*MILLPOND, *arguments], env=child_environment(settings), stdout=subprocess.PIPE
    ) as command:
        assert command.stdout is not None
        process = psutil.Process(command.pid)
        results = failed = 0
        tenth = end = peak = 0.0
        for line in command.stdout:
            said = json.loads(line)
            if "summary" in said:
                continue
            results, failed = results + 1, failed + (said["state"] != "succeeded")
            if results == count // 10:
                tenth = _mb(process.pid, "VmRSS")
            if results == count:
                end, peak = _mb(process.pid, "VmRSS"), _mb(process.pid, "VmHWM")
    return Memory(results, failed, tenth, end, peak, monotonic() - began)


def _mb(pid: int, name: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024


def main() -> None:
    """Measure the cases that were asked for, one after the other."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--recipients", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, fleet(Path(scratch)) as settings:
        for what, measure, count in (
            ("files", files, asked.files),
            ("recipients", campaign, asked.recipients),
        ):
            if count:
                memory = measure(settings, Path(scratch), count)
                print(f"{count:,} {what}: {memory}", flush=True)


if __name__ == "__main__":
    main()

"""Put load on a bounded queue by each policy, and print the figures: `python -m tests.scenarios.load`."""

import argparse
import tempfile
import time
from contextlib import closing
from pathlib import Path

from millpond.broker import limits
from millpond.broker.connection import connect
from tests.scenarios.load.abuse import CONTAINER_BYTES, abused
from tests.scenarios.load.measure import QUEUE, Pressed, commands, pool, press, producers, wait_until_done
from tests.scenarios.load.waits import settling


def main() -> None:
    """Run the loads that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.load", description=__doc__)
    parser.add_argument("what", nargs="*", default=["block", "reject", "shed", "caller_runs", "idle", "time"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--bound", type=int, default=1_000)
    parser.add_argument("--pace", type=float, default=0.02, help="seconds a task takes in one of five slots")
    asked = parser.parse_args()
    for what in asked.what:
        with tempfile.TemporaryDirectory(prefix="millpond-load-") as folder:
            if what == "idle":
                print(_idle(Path(folder), asked.seconds), flush=True)
            elif what == "abuse":
                print(_abused(Path(folder), asked.seconds), flush=True)
            elif what == "time":
                print(settling(Path(folder)), flush=True)
            else:
                print(_line(_pressed(Path(folder), what, asked)), flush=True)


def _pressed(folder: Path, policy: str, asked: argparse.Namespace) -> Pressed:
    with pool(folder, bound=asked.bound, pace=asked.pace) as running:
        return press(running, folder, [policy] * 8, threads=13, seconds=asked.seconds)


def _abused(folder: Path, seconds: float) -> str:
    """Abuse the gateway beside a well-behaved client, and return the figures as text."""
    seen = abused(folder, seconds=seconds)
    quiet, abuse = seen.p99s(0)
    quiet_cost, abuse_cost = seen.p99s(1)
    return (
        f"abuse: p99 {quiet:.1f} ms quiet, {abuse:.1f} ms abused, {abuse / quiet:.2f} times; of the "
        f"gateway's processor {quiet_cost:.1f} and {abuse_cost:.1f} ms, {abuse_cost / quiet_cost:.2f} times; "
        f"{len(seen.quiet)} and {len(seen.abused)} requests, {seen.failed} failed; the memory of the "
        f"gateway {seen.most_bytes / 1024**2:.0f} MiB at most, of {CONTAINER_BYTES / 1024**2:.0f}"
    )


def _line(p: Pressed) -> str:
    waits = ", ".join(f"p{at} {p.wait(at):.2f}" for at in (50, 99)) + f", longest {max(p.waits):.2f}"
    if p.calls:
        waits += f" (in line {p.longest_in_line:.2f}, at most {p.most_called_before} others called first)"
    return (
        f"{p.policy}: {p.accepted} accepted ({p.ran_here} run by callers), {p.refused} refused, "
        f"{p.shed} shed, {p.lost} lost, {p.twice} twice; high water {p.high_water}; {p.per_second:.0f}/s; "
        f"{p.producers} producers, fair wait {p.fair_wait:.2f} s, waits {waits} s; "
        f"{p.commands_per_second:.0f} commands/s"
    )


def _idle(folder: Path, seconds: float) -> str:
    """Count the commands of a hundred waiting producers while the queue is paused. Return them as text."""
    with pool(folder, bound=10) as running, closing(connect(running.url)) as store:
        limits.change_limits(store, QUEUE, paused=True)
        with producers(running.url, folder, ["block"] * 4, threads=25, seconds=3):
            line = f"millpond:{{{QUEUE}}}:line"
            deadline = time.monotonic() + 60
            while store.client.zcard(line) < 90 and time.monotonic() < deadline:
                time.sleep(0.1)
            waiting, before, at = store.client.zcard(line), commands(store), time.monotonic()
            time.sleep(seconds)
            asked, took = commands(store) - before, time.monotonic() - at
            limits.change_limits(store, QUEUE, paused=None)
        wait_until_done(store)
    return f"idle: {waiting} producers wait for {took:.0f} s: {asked / took:.1f} commands/s of all clients"


if __name__ == "__main__":
    main()

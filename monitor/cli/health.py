"""`millpond health`: the exit code for a container's health check, from files alone.

A check runs every few seconds, so this command is built without typer, which loads pydantic for its options.
"""

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import NoReturn

from millpond.tasks.durations import parse_seconds
from millpond.tasks.errors import BadQuantity
from millpond.tasks.process import interrupt
from millpond.tasks.process.configured_namespaces import configured_namespaces
from millpond.tasks.process.health import HEALTH_CHECKS, judge_health
from millpond.tasks.process.heartbeat_file import read_heartbeats

HELP = """\
Check the processes of a pool on this machine: live, ready and working. Exits with 0 for yes and 1 for no.

  live     the event loop turns; restart the process if not
  ready    and the broker answers, the leases are valid, and all processes run
  working  and a message was fetched or settled lately, if one was there to fetch

The command reads files that the processes of the same user write into MILLPOND_SCRATCH (default /tmp).
It checks those of the configured broker and key prefix; if `app` is configured and no broker, those of
the broker that processes of `app` have used here; and if no broker is known, those of all.
"""


class _OneLineParser(ArgumentParser):
    """A parser that reports wrong usage in one line, as the other commands do, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"millpond: {message}. See: millpond health --help\n")


def _parse_duration(text: str) -> float:
    """Return the seconds of a duration, as in 30s. Raises `ArgumentTypeError`, whose text argparse prints."""
    try:
        return parse_seconds(text)
    except BadQuantity as error:
        raise ArgumentTypeError(str(error)) from None


def main(arguments: Sequence[str]) -> int:
    """Check the processes, print the faults, and return the exit code: 0 without faults, 1 with some.

    It is 2 for wrong arguments.
    """
    parser = _OneLineParser(
        prog="millpond health",
        description=HELP,
        epilog="Example: millpond health email --live",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("pool", nargs="?", metavar="POOL", help="a pool, or `scheduler` (default: all)")
    parser.add_argument("--live", action="store_true", help="check only whether it is live")
    parser.add_argument("--ready", action="store_true", help="check only whether it is live and ready")
    parser.add_argument("--pid", type=int, help="only this process, or those of this supervisor")
    parser.add_argument(
        "--within", type=_parse_duration, metavar="TIME", help="replace every time-out, as in 30s"
    )
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    try:
        options = parser.parse_args(list(arguments))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    check = "live" if options.live else "ready" if options.ready else "working"
    heartbeats = read_heartbeats(options.pool, pid=options.pid, namespaces=configured_namespaces())
    health = judge_health(heartbeats, within_seconds=options.within, service=options.pool)
    faults = health.faults(check)
    if options.json:
        answers = {name: not health.faults(name) for name in HEALTH_CHECKS}
        text = json.dumps({"asked": check, **answers, "faults": faults, "processes": health.processes})
    else:
        text = "\n".join(faults) or f"{check}: {', '.join(health.processes)}"
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the exit code is the result
        interrupt.discard_output()
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

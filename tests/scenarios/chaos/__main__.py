"""Run chaos: `python -m tests.scenarios.chaos --seed S --tasks N --faults K --transport WAY`.

WAY is `millpond` (its client and workers), `stock` (a Celery application with its client and workers on
kombu's transport), `transport` (the same on Millpond's transport) or `app` (the application under `millpond
worker --app`). Prints the faults and the verdict. The exit code is 1 if a task was lost, started early, or
ran twice without a fault that explains it.
"""

import argparse
import math
import shutil
import sys
import tempfile
from pathlib import Path

from tests.scenarios.chaos.faults import WEIGHTS
from tests.scenarios.chaos.fleet import WAYS
from tests.scenarios.chaos.forgetting import KINDS
from tests.scenarios.chaos.report import show, show_repeats
from tests.scenarios.chaos.running import Plan, run


def main() -> int:
    """Read the arguments, run, and print the verdict."""
    parser = argparse.ArgumentParser(prog="tests.scenarios.chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--every", type=float, default=1.2, help="seconds between faults")
    parser.add_argument("--transport", choices=WAYS, default="millpond")
    parser.add_argument("--only", choices=(*WEIGHTS, *KINDS), help="inflict this kind of fault and no other")
    parser.add_argument("--within", type=float, default=math.inf, help="end after so many seconds")
    parser.add_argument("--keep", action="store_true", help="keep the ledger and logs of a good run too")
    parser.add_argument(
        "--again", type=Path, metavar="FOLDER", help="print only what the faults of a kept run cost"
    )
    asked = parser.parse_args()
    if asked.again:
        return show_repeats(asked.again)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    asked_for = (asked.transport, asked.seed, asked.tasks, asked.faults, asked.every)
    plan = Plan(*asked_for, folder, within_seconds=asked.within, only=asked.only)
    verdict, seconds = run(plan)
    show(plan, verdict, seconds)
    if asked.keep or verdict.wrong:
        print(f"ledger and logs: {folder}")
        print(f"each fault by itself: python -m tests.scenarios.chaos --again {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

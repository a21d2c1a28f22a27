"""Run chaos: `python -m tests.chaos --seed S --tasks N --faults K --transport millpond|stock`.

Prints what was done and what came of it; the exit code is 1 when something was lost, early, or run twice
without a reason.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.report import show
from tests.chaos.running import Plan, run


def main() -> int:
    """Read the arguments, run, and print the verdict."""
    parser = argparse.ArgumentParser(prog="tests.chaos")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--faults", type=int, default=30)
    parser.add_argument("--every", type=float, default=1.2, help="seconds between faults")
    parser.add_argument("--transport", choices=("millpond", "stock"), default="millpond")
    parser.add_argument("--keep", action="store_true", help="keep the logs of a good run too")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    plan = Plan(asked.transport, asked.seed, asked.tasks, asked.faults, asked.every, folder)
    verdict, seconds = run(plan)
    show(plan, verdict, seconds)
    if asked.keep or verdict.wrong:
        print(f"logs: {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

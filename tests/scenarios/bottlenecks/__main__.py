"""Put real pools under known bottlenecks and print the diagnosis of each, and the confusion matrix.

`python -m tests.scenarios.bottlenecks [--only TEXT] [--no-truth]`. The exit code is 1 where fewer than 95 %
are right or `workers` is said falsely.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.scenarios.bottlenecks.cases import cases
from tests.scenarios.bottlenecks.running import Seen, line, run


def main() -> int:
    """Run the cases one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.bottlenecks", description=__doc__)
    parser.add_argument("--only", default="", help="run the cases that have this in their name or executor")
    parser.add_argument("--no-truth", action="store_true", help="do not double the slots")
    asked = parser.parse_args()
    kinds = str(Path(__file__).parents[2] / "kinds")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [kinds, os.environ.get("PYTHONPATH")]))
    sys.path.append(kinds)
    seen: list[Seen] = []
    for case in cases():
        if asked.only in f"{case.name} {case.executor}":
            with tempfile.TemporaryDirectory(prefix="millpond-bottleneck-") as folder:
                seen.append(run(case, Path(folder), truth=not asked.no_truth))
            print(line(seen[-1]), flush=True)
    return _closed(seen)


def _closed(seen: list[Seen]) -> int:
    matrix = Counter((each.case.right[0], each.last.state if each.last else "-") for each in seen)
    print("\n| true | said | times |\n|---|---|---:|")
    for (true, said), times in sorted(matrix.items()):
        print(f"| {true} | {said} | {times} |")
    right, falsely = sum(each.right for each in seen), sum(each.falsely_workers for each in seen)
    print(f"\n{right} of {len(seen)} right, {falsely} times falsely `workers`")
    return 0 if right >= 0.95 * len(seen) and not falsely else 1


if __name__ == "__main__":
    sys.exit(main())

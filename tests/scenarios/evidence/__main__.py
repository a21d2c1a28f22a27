"""Check promises of batches, drains, delayed tasks and Flower at full size.

`python -m tests.scenarios.evidence million`
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path

from tests.harness.kinds_path import add_kinds_to_path
from tests.scenarios.evidence import delayed, drains, halfway, million, watching

RUNS = {
    "million": (million.run, 1_000_000),
    "halfway": (halfway.run, 10_000),
    "drains": (drains.run, 50),
    "delayed": (delayed.run, 1_000_000),
    "watching": (watching.run, 200_000),
}


def main() -> None:
    """Run one of the runs and print its figures as JSON. Raises `AssertionError` for a broken promise."""
    parser = argparse.ArgumentParser(prog="tests.scenarios.evidence", description=__doc__)
    parser.add_argument("what", choices=RUNS)
    parser.add_argument("--count", type=int, help="results, tasks or drains (default: the full size)")
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    run, usual = RUNS[asked.what]
    add_kinds_to_path()
    with tempfile.TemporaryDirectory(prefix="evidence-") as folder:
        print(json.dumps(run(asked.count or usual, Path(folder)), indent=2))


if __name__ == "__main__":
    main()

"""Run the drills and print a table of their findings.

`python -m tests.scenarios.drills [--scale 1] [NAME…]`
"""

import argparse
import logging
import shutil
import sys
import tempfile
from pathlib import Path

from tests.harness.kinds_path import add_kinds_to_path


def main() -> int:
    """Run the drills. Return 1 if an expected sign did not come, or if a drill did not end well, else 0."""
    parser = argparse.ArgumentParser(prog="tests.scenarios.drills", description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of drills (default: all)")
    parser.add_argument(
        "--scale", type=float, default=20, help="alerts wait this many times shorter; 1: as shipped"
    )
    asked = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    add_kinds_to_path()
    from tests.scenarios.drills.drills import DRILLS
    from tests.scenarios.drills.running import run, table
    from tests.scenarios.drills.world import world

    program = shutil.which("prometheus")
    if program is None:
        sys.exit("prometheus is not installed here: on Debian, apt-get install prometheus")
    seen = []
    with (
        tempfile.TemporaryDirectory(prefix="drills-") as folder,
        world(Path(folder), scale=asked.scale, program=program) as made,
    ):
        for drill in DRILLS:
            if not asked.names or any(name in drill.name for name in asked.names):
                seen.append(run(drill, made))
                logging.info("%s: missing %s", drill.name, seen[-1].missing or "nothing")
                logging.info("%s", seen[-1].faults)
                if seen[-1].missing:
                    logging.info("%s", seen[-1].page)
                print(table(seen[-1:]), flush=True)
    print(table(seen))
    return int(any(each.missing or each.well_seconds is None for each in seen))


if __name__ == "__main__":
    sys.exit(main())

"""Put real pools under known bottlenecks and print the diagnosis of each, and the confusion matrix.

`python -m tests.scenarios.bottlenecks [--only TEXT] [--part 1/2] [--results FILE] [--no-truth]`, and
`--join FILE ...` for the matrix of results that are there. The exit code is 1 where fewer than 95 % are right
or `workers` is said falsely.
"""

import argparse
import fcntl
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.scenarios.bottlenecks.case import Case
from tests.scenarios.bottlenecks.cases import cases
from tests.scenarios.bottlenecks.results import Seen, append, load, matrix
from tests.scenarios.bottlenecks.running import kept_nice, run


def main() -> int:
    """Run the cases one after the other, or join results of earlier runs."""
    parser = argparse.ArgumentParser(prog="python -m tests.scenarios.bottlenecks", description=__doc__)
    parser.add_argument(
        "--only", default="", help="run the cases that have one of these texts (a|b) in their label"
    )
    parser.add_argument("--part", default="1/1", help="run every second case, the first one first: 1/2")
    parser.add_argument("--results", type=Path, help="add each result to this file, and skip what it has")
    parser.add_argument("--no-truth", action="store_true", help="do not double the slots")
    parser.add_argument("--together", action="store_true", help="run cases that compute beside other parts")
    parser.add_argument("--join", type=Path, nargs="+", help="print the matrix of these files; run nothing")
    asked = parser.parse_args()
    if asked.join:
        seen = load(asked.join)
        print(*(each.line for each in seen), "", sep="\n")
        return _closed(seen)
    kinds = str(Path(__file__).parents[2] / "kinds")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [kinds, os.environ.get("PYTHONPATH")]))
    sys.path.append(kinds)
    with kept_nice():
        found = [_run(case, asked) for case in _chosen(asked)]
    return _closed([seen for seen in found if seen is not None])


def _chosen(asked: argparse.Namespace) -> list[Case]:
    """Return the cases of this part that have no result yet, those that fill the processors last."""
    number, parts = (int(each) for each in asked.part.split("/"))
    texts = asked.only.split("|")
    known = (
        {each.label for each in load([asked.results])} if asked.results and asked.results.exists() else set()
    )
    found = [case for case in cases() if any(text in case.label for text in texts)]
    own = [case for n, case in enumerate(found) if n % parts == number - 1 and case.label not in known]
    return sorted(own, key=lambda case: case.computes)  # the parts wait for each other at the end alone


def _run(case: Case, asked: argparse.Namespace) -> Seen | None:
    """Run a case; None if the machine was too busy to start its workers, so that it is run again."""
    place = tempfile.TemporaryDirectory(prefix="millpond-bottleneck-")
    with _alone(case, together=asked.together), place as folder:
        try:
            seen = run(case, Path(folder), truth=not asked.no_truth)
        except AssertionError as error:
            print(f"{case.label}: not run: {error}", flush=True)
            return None
    print(seen.line, flush=True)
    if asked.results:
        append(seen, asked.results)
    return seen


@contextmanager
def _alone(case: Case, *, together: bool) -> Iterator[None]:
    """Run a case that fills the processors while no other part runs one.

    A part that waits to be alone keeps the first lock, so that no other part begins a case before it.
    """
    folder = Path(tempfile.gettempdir())
    with (folder / "millpond-bottlenecks.next.lock").open("w") as following:
        fcntl.flock(following, fcntl.LOCK_EX)
        with (folder / "millpond-bottlenecks.lock").open("w") as running:
            fcntl.flock(running, fcntl.LOCK_EX if case.computes and not together else fcntl.LOCK_SH)
            fcntl.flock(following, fcntl.LOCK_UN)
            yield


def _closed(seen: list[Seen]) -> int:
    print("", *matrix(seen), sep="\n")
    right, falsely = sum(each.right for each in seen), sum(each.falsely_workers for each in seen)
    return 0 if right >= 0.95 * len(seen) and not falsely else 1


if __name__ == "__main__":
    sys.exit(main())

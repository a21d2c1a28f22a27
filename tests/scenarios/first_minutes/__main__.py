"""Follow README.md in a fresh environment: `python3 -m tests.scenarios.first_minutes [--wheel FILE]`.

Needs nothing but the programs that the page asks for, so it runs in a bare root of Debian. Prints every
command entered and its time; stops at the first line that would stop a newcomer.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.scenarios.first_minutes.following import Reader, Stopped, copy_clone, fresh_env

TOP = Path(__file__).parents[3]


def main() -> int:
    """Follow the page; return 0, or 1 where a line stopped it."""
    parser = argparse.ArgumentParser(prog="first_minutes", description=__doc__)
    parser.add_argument("--wheel", type=Path, help="install this, and use no clone")
    asked = parser.parse_args()
    begun = monotonic()
    with tempfile.TemporaryDirectory(prefix="first-minutes-") as folder:
        home, clone = Path(folder, "home"), Path(folder, "millpond")
        home.mkdir()
        python = Path(sys.base_prefix, "bin", "python3")
        if not asked.wheel:
            copy_clone(TOP, clone)
        reader = Reader(clone, fresh_env(home, python), asked.wheel and asked.wheel.resolve())
        try:
            reader.follow((TOP / "README.md").read_text())
        except Stopped as stopped:
            print(stopped, file=sys.stderr)
            return 1
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}: all {len(reader.done)} commands went well, in {monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make the kinds of tests/kinds importable in a program. Tests have the fixture `kinds_path`."""

import os
import sys
from pathlib import Path

KINDS = str(Path(__file__).parents[1] / "kinds")


def add_kinds_to_path() -> None:
    """Add tests/kinds to the path of this process, and of the processes that it starts."""
    sys.path.append(KINDS)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [KINDS, os.environ.get("PYTHONPATH")]))

"""Tasks of the kind `test.gate` (tests/kinds/pond_kinds.py): each runs until a test opens its gate."""

from pathlib import Path

from millpond.tasks.contract import Contract


def gate(folder: Path, name: str) -> Contract:
    """Return a task that runs until there is a file `name.open` in `folder`."""
    from pond_kinds import Gate

    return Gate(folder=str(folder), name=name)

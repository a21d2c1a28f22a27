"""The smallest kind: the example of the README."""

from millpond.tasks.contract import Contract


class Square(Contract, kind="squares.square", queue="default"):
    """Square an integer, after occupying its slot for `hold_seconds`."""

    n: int
    hold_seconds: float = 0.0

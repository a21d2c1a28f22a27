"""Describe the smallest kind there is: the one of the essay that Millpond grew from."""

from millpond.tasks.contract import Contract


class Square(Contract, kind="squares.square", queue="default"):
    """Square an integer, after holding its slot for a while, as real work would."""

    n: int
    hold_seconds: float = 0.0

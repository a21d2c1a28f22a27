"""Time limits of a queue whose pool has threads are named: nothing can end a thread."""

from typing import Any

import pytest

from millpond.tasks.pools import PoolsTable


@pytest.mark.parametrize(
    ("executor", "queue", "limits"),
    [
        ("threads", {"soft_limit_seconds": 1, "hard_limit_seconds": "2m"}, "soft_limit_seconds = 1 and hard"),
        ("threads", {"hard_limit_seconds": 500}, "hard_limit_seconds = 500 of queue default"),
        ("threads", {"bound": 5}, None),
        ("prefork", {"soft_limit_seconds": 1}, None),
    ],
)
def test_limits_other_than_those_that_ship(executor: str, queue: dict[str, Any], limits: str | None) -> None:
    """The limits that ship were not chosen by anybody, so they are not named."""
    table = PoolsTable.model_validate(
        {"pools": {"default": {"executor": executor}}, "queues": {"default": queue}}
    )
    found = list(table.limits_not_kept("default"))
    assert (not found) if limits is None else (len(found) == 1 and found[0].startswith(limits))

"""Bodies are declared as they are imported, and what cannot be one is refused there."""

import pytest

from tasks.bodies import bodies, body
from tasks.context import Context
from tasks.contracts import Contract


class Wait(Contract, kind="test.bodies.wait"):
    """Wait for nothing."""


def test_a_coroutine_is_refused_where_it_is_declared() -> None:
    """`async def` is no body: it would end at once, having done nothing; the words say what to write."""

    async def wait(job: Wait, context: Context) -> None:
        pass

    with pytest.raises(TypeError, match=r"write `def wait` and call asyncio\.run"):
        body(Wait)(wait)
    assert Wait.kind not in bodies()

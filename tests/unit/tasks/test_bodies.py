"""Bodies are declared as they are imported, and an impossible one is refused there."""

from typing import Any

import pytest

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import UnknownKind
from millpond.tasks.handlers import body, handlers_by_kind


class Wait(Contract, kind="test.bodies.wait"):
    """Wait for nothing."""


def test_a_coroutine_is_refused_where_it_is_declared() -> None:
    """`async def` is no body: it would end at once, having done nothing; the error shows the right form."""

    async def wait(job: Wait, context: Context) -> None:
        pass

    with pytest.raises(TypeError, match=r"write `def wait` and call asyncio\.run"):
        body(Wait)(wait)
    assert Wait.kind not in handlers_by_kind()


def test_a_function_that_a_slot_cannot_call_is_refused_where_it_is_declared() -> None:
    """Otherwise each task of the kind would become a dead letter."""
    with pytest.raises(
        TypeError, match=r"called with the job and its context, and alone cannot be \(too many"
    ):

        @body(Wait)  # type: ignore[arg-type]
        def alone(job: Wait) -> None:
            pass

    assert Wait.kind not in handlers_by_kind()


@pytest.mark.parametrize("given", [len, "test.bodies.wait", Wait()])
def test_a_body_is_declared_with_its_contract(given: Any) -> None:
    """`@handler` without one, or with the name of a kind, is told how it is written."""
    with pytest.raises(TypeError, match=r"is no contract: write @handler\(Greet\)"):
        body(given)


def test_a_kind_has_one_body() -> None:
    """A second function of a kind is refused: which of them ran would depend on the last import."""

    class Once(Contract, kind="test.bodies.once"):
        """A kind with one handler."""

    @body(Once)
    def first(job: Once, context: Context) -> None:
        pass

    with pytest.raises(UnknownKind, match=r"two functions are the handler of 'test\.bodies\.once', .*second"):

        @body(Once)
        def second(job: Once, context: Context) -> None:
            pass

    assert handlers_by_kind()[Once.kind].function is first
    assert body(Once)(first) is first, "a module that is loaded again declares the same"


def test_the_decorator_has_the_glossarys_word() -> None:
    """`from millpond import handler` is what the README says; the older name is the same."""
    import millpond

    assert millpond.handler is millpond.body

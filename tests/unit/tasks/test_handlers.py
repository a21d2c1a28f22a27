"""Handlers are declared by the decorator, which refuses a function that cannot be one."""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest

from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import UnknownKind
from millpond.tasks.handlers import handler, handlers_by_kind


class Wait(Contract, kind="test.handlers.wait"):
    """Wait for nothing."""


def test_a_coroutine_is_refused_where_it_is_declared() -> None:
    """An async function is refused, with the right form: a slot would only create its coroutine."""

    async def wait(job: Wait, context: Context) -> None:
        pass

    with pytest.raises(TypeError, match=r"write `def wait` and call asyncio\.run"):
        handler(Wait)(wait)
    assert Wait.kind not in handlers_by_kind()


def test_a_generator_is_refused_where_it_is_declared() -> None:
    """A function with a `yield` is refused: a slot would only create its generator."""

    def wait(job: Wait, context: Context) -> Iterator[None]:
        yield

    with pytest.raises(TypeError, match="has a yield, so that a call of wait runs nothing"):
        handler(Wait)(wait)
    assert Wait.kind not in handlers_by_kind()


def test_a_decorator_may_give_a_handler_more_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper that takes a job and a context is a handler, whatever the function that it wraps takes."""
    monkeypatch.setattr("millpond.tasks.handlers._handlers", {})

    def with_session(function: Callable[..., str]) -> Callable[[Wait, Context], str]:
        @wraps(function)
        def wrapper(job: Wait, context: Context) -> str:
            return function(job, context, "session")

        return wrapper

    @handler(Wait)
    @with_session
    def wait(job: Wait, context: Context, session: str) -> str:
        return session

    assert handlers_by_kind()[Wait.kind].function(Wait(), Context()) == "session"


def test_a_function_that_a_slot_cannot_call_is_refused_where_it_is_declared() -> None:
    """A function with other parameters is refused: each task of the kind would become a dead letter."""
    with pytest.raises(
        TypeError, match=r"called with the job and its context, and alone cannot be \(too many"
    ):

        @handler(Wait)  # type: ignore[arg-type]
        def alone(job: Wait) -> None:
            pass

    assert Wait.kind not in handlers_by_kind()


@pytest.mark.parametrize("given", [len, "test.handlers.wait", Wait()])
def test_a_handler_is_declared_with_its_contract(given: Any) -> None:
    """The error for `@handler` without a contract, or with the name of a kind, shows the right form."""
    with pytest.raises(TypeError, match=r"is no contract: write @handler\(Greet\)"):
        handler(given)


def test_a_kind_has_one_handler() -> None:
    """A second function for a kind is refused. The last import would decide which of them runs."""

    class Once(Contract, kind="test.handlers.once"):
        """A kind with one handler."""

    @handler(Once)
    def first(job: Once, context: Context) -> None:
        pass

    with pytest.raises(
        UnknownKind, match=r"two functions are the handler of 'test\.handlers\.once', .*second"
    ):

        @handler(Once)
        def second(job: Once, context: Context) -> None:
            pass

    assert handlers_by_kind()[Once.kind].function is first
    assert handler(Once)(first) is first, "a module that is loaded again declares the same"


def test_the_older_name_is_the_same_decorator() -> None:
    """`body`, the older name, is the same decorator."""
    import millpond

    assert millpond.handler is millpond.body

"""Signatures of an application under `task_always_eager`, as in its tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, chain, current_app

from millpond.producer.client import Client

RAN: list[int] = []


@pytest.fixture(scope="module")
def task() -> Iterator[Any]:
    """A task of an application that runs its tasks in the caller."""
    previous = current_app._get_current_object()
    app = Celery(broker="redis://127.0.0.1:1/0")
    app.conf.task_always_eager = True

    @app.task(name="orchard.mark")  # type: ignore[untyped-decorator]
    def mark() -> None:
        RAN.append(1)

    yield mark
    previous.set_current()


@pytest.mark.parametrize("form", ["signature", "chain", "fields"])
@pytest.mark.parametrize("method", ["send", "send_many"])
def test_an_eager_task_is_refused_before_it_runs_and_without_a_broker(
    task: Any, form: str, method: str
) -> None:
    """The error says what to call instead. The task does not run, and no broker is asked."""
    sent = {"signature": task.si(), "chain": chain(task.si(), task.si()), "fields": dict(task.si())}[form]
    with Client("redis://127.0.0.1:1/0") as client, pytest.raises(TypeError, match=r"apply_async\(\)"):
        getattr(client, method)(sent if method == "send" else [sent])
    assert RAN == []

"""What the threads of a process share is made once in each process."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from millpond.tasks.context import Context
from millpond.tasks.email import task, template_process
from millpond.tasks.email.contract import SendEmail
from millpond.tasks.process import spans
from millpond.tasks.process.one_per_process import one_per_process
from millpond.worker import handler_services

THREADS = 8
#: How long a maker waits for others that make the same at the same time.
TOGETHER_SECONDS = 0.5


class Maker:
    """Makes objects, and counts them. It waits until all threads are making one, or for half a second."""

    def __init__(self) -> None:
        self.made: list[object] = []
        self._barrier = threading.Barrier(THREADS)

    def __call__(self, *_args: Any, **_options: Any) -> Any:
        thing = Thing()
        self.made.append(thing)
        with suppress(threading.BrokenBarrierError):
            self._barrier.wait(TOGETHER_SECONDS)
        return thing


class Thing:
    """Stands for whatever is made: it has every method, and each returns another."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_args, **_options: Thing()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Make everything anew in a test, and again after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILLPOND_BROKER_URL", "redis://nobody.invalid/0")
    forget_all()
    yield
    forget_all()


def forget_all() -> None:
    for shared in (
        task._shared_mailer,
        template_process.template_process,
        handler_services._connect_store,
        handler_services.shared_cancellations,
        spans._own_provider,
    ):
        shared.forget()
    spans._cached_tracer.cache_clear()


def call_in_threads(call: Callable[[], object]) -> None:
    """Call a function in eight threads at the same time. Raises the first error."""
    begin = threading.Barrier(THREADS)

    def run() -> None:
        begin.wait(10)
        call()

    with ThreadPoolExecutor(THREADS) as threads:
        for done in [threads.submit(run) for _ in range(THREADS)]:
            done.result()


def send_mail() -> object:
    return task.send_email(SendEmail(sender="a@example.org", to="b@example.org", text="hi"), Context(id="t"))


@pytest.mark.parametrize(
    ("module", "name", "use"),
    [
        (task, "Mailer", send_mail),
        (template_process, "TemplateProcess", template_process.template_process),
        (handler_services, "connect", handler_services.shared_store),
        (handler_services, "Cancellations", handler_services.shared_cancellations),
        ("opentelemetry.sdk.trace", "TracerProvider", spans.tracer),
    ],
)
def test_eight_threads_at_first_use_make_one(
    module: Any, name: str, use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process has one mailer, template process, store, reader of cancellations and provider of spans."""
    if isinstance(module, str):
        module = pytest.importorskip(module)
    monkeypatch.setattr(spans, "_collector", {"endpoint": "http://nobody.invalid", "service": "test"})
    maker = Maker()
    monkeypatch.setattr(module, name, maker)
    call_in_threads(use)
    use()
    assert len(maker.made) == 1


def test_other_settings_make_another() -> None:
    """The object belongs to its arguments; equal ones are the same."""
    make = one_per_process(lambda arguments: list(arguments))
    first = make([1])
    assert make([1]) is first
    assert make([2]) == [2]


def test_an_error_is_not_kept() -> None:
    """A call after a failed one tries again."""
    answers = [ValueError("no broker"), "made"]

    @one_per_process
    def make() -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(ValueError, match="no broker"):
        make()
    assert make() == "made"


@pytest.mark.parametrize("is_made", [True, False])
def test_a_forked_child_makes_its_own(is_made: bool) -> None:
    """Also if a thread of the parent was making one at the fork, which never ends in the child."""
    making, go_on = threading.Event(), threading.Event()

    @one_per_process
    def make() -> int:
        making.set()
        assert go_on.wait(10) or os.getpid() != parent
        return os.getpid()

    parent = os.getpid()
    if is_made:
        go_on.set()
        make()
    with ThreadPoolExecutor(1) as threads:
        made = threads.submit(make)
        assert making.wait(10)
        child = os.fork()
        if not child:
            go_on.set()
            signal.alarm(10)
            os._exit(0 if make() == os.getpid() else 1)
        assert os.waitpid(child, 0)[1] == 0
        go_on.set()
        assert made.result() == parent

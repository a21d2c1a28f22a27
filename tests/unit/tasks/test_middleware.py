"""How middleware is named, loaded and ordered, and what it may not do."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from millpond import Context, Middleware, Square
from millpond.tasks import middleware
from millpond.tasks.errors import BrokerAway, SettingsError

MODULE = """
import threading
from contextlib import suppress
from millpond import Middleware

together = threading.Barrier(8)

class Outer(Middleware):
    def on_sending(self, sending):
        sending.headers["seen"] = ["outer"]

class Inner(Middleware):
    def on_sending(self, sending):
        sending.headers["seen"].append("inner")

class Slow(Outer):
    def __init__(self):
        with suppress(threading.BrokenBarrierError):
            together.wait(0.5)

class Broken(Middleware):
    def __init__(self):
        raise OSError("no such tenant")

class Misspelled(Middleware):
    def around_execution(self, job, context, call_next):
        return call_next(job, context)

class Async(Middleware):
    async def around_executing(self, job, context, call_next):
        return call_next(job, context)

class Yielding(Middleware):
    def around_executing(self, job, context, call_next):
        yield call_next(job, context)

class Short(Middleware):
    def around_executing(self, job, call_next):
        return call_next(job)

class Other(Middleware):
    redact = staticmethod(lambda text, running=None, *more: text)
    def around_executing(*arguments, **options):
        return arguments[-1](*arguments[1:3])

made = Outer()
number = 7
"""


def about_to_send() -> middleware.Sending:
    """Return a task that is about to be sent."""
    return middleware.Sending(Square(n=2), "one", "default")


@pytest.fixture(autouse=True)
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Write a module of middleware into the current folder."""
    (tmp_path / "shop_middleware.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    middleware._loaded.clear()
    yield
    sys.modules.pop("shop_middleware", None)
    middleware._loaded.clear()


def test_it_is_named_in_order_and_made_once() -> None:
    """Middleware is loaded in the order of the setting, and a process has one object of each."""
    names = ("shop_middleware:Outer", "shop_middleware:Inner")
    loaded = middleware.load_middleware(names)
    assert [type(each).__name__ for each in loaded] == ["Outer", "Inner"]
    assert middleware.load_middleware(names) == loaded
    assert middleware.add_headers(middleware.Hooks(loaded).on_sending, about_to_send()).headers == {
        "seen": ["outer", "inner"]
    }


def test_threads_that_load_it_together_have_the_same_object() -> None:
    """Also clients that are made at the same moment, in a process that has loaded no middleware yet."""
    begin = threading.Barrier(8)

    def load() -> middleware.Middleware:
        begin.wait(10)
        return middleware.load_middleware(["shop_middleware:Slow"])[0]

    with ThreadPoolExecutor(8) as threads:
        loaded = [done.result() for done in [threads.submit(load) for _ in range(8)]]
    assert len({id(each) for each in loaded}) == 1
    assert middleware.load_middleware(["shop_middleware:Slow"])[0] is loaded[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop_middleware", "write the module and the class, as in shop.tenants:Tenants"),
        ("shop_middlewares:Outer", "no such module is installed or lies in"),
        (".shop_middleware:Outer", "write its whole name, as in shop.tasks"),
        ("shop_middleware:Outr", "shop_middleware has no 'Outr'"),
        ("shop_middleware:number", "is no middleware: derive it from millpond.Middleware"),
        ("shop_middleware:Broken", "cannot be made: OSError: no such tenant"),
        ("shop_middleware:Misspelled", "has no method that Millpond calls; there are: around_executing, "),
        ("shop_middleware:Misspelled", "Did you mean 'around_executing'?"),
        ("shop_middleware:Async", "a method around_executing that is async, and runs in no event loop"),
        ("shop_middleware:Yielding", "has a yield, so that a call of it runs nothing"),
        ("shop_middleware:Short", "with 3 arguments (too many positional arguments): write `def around_"),
    ],
)
def test_a_name_that_is_none_is_refused_in_one_line(name: str, said: str) -> None:
    """A wrong name in the setting is an error of one line with the name."""
    with pytest.raises(SettingsError) as refused:
        middleware.load_middleware([name])
    assert said in str(refused.value)
    assert name.partition(":")[0] in str(refused.value)
    assert "\n" not in str(refused.value)


def test_methods_may_have_other_parameters() -> None:
    """A method that can be called as Millpond calls it is taken, whatever its parameters are called."""
    (other,) = middleware.load_middleware(["shop_middleware:Other"])
    assert middleware.Hooks([other]).redact[0]("text", Context()) == "text"
    layer = middleware.wrap_call(middleware.Hooks([other]).around_executing[0], lambda job, _context: job + 1)
    assert layer(1, Context()) == 2


def test_an_installed_package_brings_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The middleware of an entry point is loaded after that of the setting."""
    point = EntryPoint("shop", "shop_middleware:Inner", middleware.ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        "importlib.metadata.entry_points",
        lambda group: [point] if group == middleware.ENTRY_POINT_GROUP else [],
    )
    middleware.load_middleware(["shop_middleware:Outer"])
    assert [type(each).__name__ for each in middleware.load_middleware(["shop_middleware:Outer"])] == [
        "Outer",
        "Inner",
    ]


def test_a_task_passes_no_middleware_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that comes twice is refused. An entry point's that is named too has the place of its name."""
    with pytest.raises(SettingsError, match="middleware names 'shop_middleware:Outer' twice"):
        middleware.load_middleware(["shop_middleware:Outer", "shop_middleware:Outer"])
    point = EntryPoint("shop", "shop_middleware:Inner", middleware.ENTRY_POINT_GROUP)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [point])
    loaded = middleware.load_middleware(["shop_middleware:Inner", "shop_middleware:Outer"])
    assert [type(each).__name__ for each in loaded] == ["Inner", "Outer"]


def test_an_entry_point_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error for an entry point that cannot be loaded is one line with its name."""
    point = EntryPoint("shop", "shop_middlewares:Inner", middleware.ENTRY_POINT_GROUP)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [point])
    with pytest.raises(SettingsError, match="the entry point 'shop' of a package cannot be loaded: Module"):
        middleware.load_middleware([])


@pytest.mark.parametrize("name", ["id", "millpond", "eta"])
def test_a_header_of_the_protocol_is_not_middlewares_to_set(name: str) -> None:
    """Middleware that sets a header of Celery or Millpond is refused before the task is sent."""

    class Bad(Middleware):
        def on_sending(self, sending: middleware.Sending) -> None:
            sending.headers[name] = "x"

    with pytest.raises(ValueError, match=f"'{name}' is a header of Celery's or Millpond's"):
        middleware.add_headers([Bad().on_sending], about_to_send())


def test_what_is_not_overridden_costs_nothing() -> None:
    """A method that nobody overrides is not called."""
    assert not any(vars(middleware.Hooks([Middleware()])).values())


def test_a_task_is_seen_by_the_first_first_and_its_end_by_the_last() -> None:
    """Hooks before a task run in the order of the setting, and hooks after it in the reverse order."""

    class Every(Middleware):
        def on_sending(self, sending: middleware.Sending) -> None: ...
        def on_sent(self, sending: middleware.Sending, error: Exception | None) -> None: ...
        def around_executing(self, job: Any, context: Any, call_next: Any) -> Any: ...
        def shows_events(self, delivery: Any) -> bool: ...  # type: ignore[empty-body]
        def log_fields(self, context: Any) -> dict[str, Any]: ...  # type: ignore[empty-body]
        def redact(self, line: str, context: Any) -> str: ...  # type: ignore[empty-body]
        def on_outcome(self, delivery: Any, outcome: Any, seconds: float | None) -> None: ...
        def on_worker_start(self) -> None: ...
        def on_worker_stop(self) -> None: ...

    outer, inner = Every(), Every()
    for name, hooks in vars(middleware.Hooks([outer, inner])).items():
        inwards = name in ("on_sending", "on_worker_start")
        expected = [outer, inner] if inwards else [inner, outer]
        assert [getattr(hook, "__wrapped__", hook).__self__ for hook in hooks] == expected, name


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (
            lambda _: {"tenant": "a"},
            "Adding.on_sending returned a dict, which nothing reads: add headers to ",
        ),
        (lambda sending: setattr(sending, "headers", None), "sending.headers is None, and must stay a dict"),
        (lambda sending: sending.headers.update({7: "x"}), "the header 7 has a name that is no text"),
        (lambda sending: sending.headers.update(at=date(2026, 1, 1)), "'at' cannot be written as JSON"),
        (lambda sending: sending.headers.update(n=float("nan")), "'n' cannot be written as JSON"),
    ],
)
def test_headers_that_would_not_arrive_as_they_are_are_refused(add: Any, said: str) -> None:
    """The task is not sent: a handler would miss its tenant."""

    class Adding(middleware.Middleware):
        def on_sending(self, sending: middleware.Sending) -> None:
            return add(sending)  # type: ignore[no-any-return]

    with pytest.raises(TypeError) as refused:
        middleware.add_headers(middleware.Hooks([Adding()]).on_sending, about_to_send())
    assert said in str(refused.value)


def test_an_error_after_sending_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The broker has replied: a sender that got the error would send the task again."""
    sent = []

    class Outer(middleware.Middleware):
        def on_sent(self, sending: middleware.Sending, error: Exception | None) -> None:
            sent.append(sending.id)

    class Failing(middleware.Middleware):
        def on_sent(self, sending: middleware.Sending, error: Exception | None) -> None:
            raise OSError("no metrics")

    for hook in middleware.Hooks([Outer(), Failing()]).on_sent:
        hook(about_to_send(), None)
        hook(about_to_send(), BrokerAway("no reply"))
    assert sent == ["one", "one"]
    assert "Failing.on_sent failed after task one was sent" in caplog.text
    assert "after task one was refused, or its sending failed (no reply)" in caplog.text
    assert "OSError: no metrics" in caplog.text

"""`execute` makes one outcome of a delivery, whatever the handler raises."""

import asyncio
import json
import logging
import pickle
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from pydantic import Field

from millpond.broker.delivery import Delivery
from millpond.broker.message import Message
from millpond.broker.outcomes import Cancelled as CancelledOutcome
from millpond.broker.outcomes import DeadLetter, Outcome, Retry, Succeeded
from millpond.broker.outgoing import compose
from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.errors import Cancelled, FinalError, RetryLater
from millpond.tasks.execute import RESULT_LENGTH, backoff_seconds, execute, running_context
from millpond.tasks.handlers import Handler
from millpond.tasks.middleware import Hooks, Middleware
from millpond.tasks.process.log_middleware import LOG_MIDDLEWARE
from millpond.tasks.process.logs import JsonFormatter, PlainFormatter


class Job(Contract, kind="execute.job"):
    """A number and a secret."""

    n: int = 0
    secret: str = Field("", repr=False)


def run(
    function: Any, *, middleware: tuple[Middleware, ...] = (), retries: int = 0, **wanted: Any
) -> Outcome:
    """Run a function as a handler with one retry."""
    kwargs = wanted.pop("kwargs", {"n": 3})
    sent = compose(Job.kind, kwargs, queue="default", sent_at_ms=1_000, **wanted)
    message = Message.decode(sent.payload.replace('"retries":0', f'"retries":{retries}'))
    delivery = Delivery(message, queue="default", token="1/0", clock_ms=5_000)
    context = Context(id=sent.id, kind=Job.kind, batch=sent.batch, worker="here", message=message)
    outcome = execute(
        Handler(Job, function, retries=1), delivery, context, Hooks(middleware).around_executing
    )
    pickle.loads(pickle.dumps(outcome))  # it crosses a process boundary, whatever was raised
    return outcome


def raising(error: BaseException) -> Any:
    def body(job: Job, context: Context) -> None:
        raise error

    return body


def number(job: Job, context: Context) -> int:
    return job.n


def returning(value: Any) -> Any:
    def body(job: Job, context: Context) -> Any:
        return value

    return body


class Unspeakable(Exception):
    """An error whose every method raises."""

    def __str__(self) -> str:
        raise RuntimeError("not to be said")

    __repr__ = __str__

    def __reduce__(self) -> Any:
        raise RuntimeError("not to be pickled")


class Panic(BaseException):
    """An error that is no `Exception`, like PyO3's panic."""


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (Unspeakable(), "Unspeakable"),
        (asyncio.CancelledError(), "CancelledError"),
        (GeneratorExit(), "GeneratorExit"),
        (Panic("at the disco"), "Panic"),
        (MemoryError(), "MemoryError"),
        (FinalError("no"), "FinalError"),
    ],
)
def test_whatever_is_raised_is_one_dead_letter_by_its_own_name(error: BaseException, name: str) -> None:
    """The dead letter has the error's name, a line, a traceback from the handler on, and the worker."""
    outcome = run(raising(error))
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == name
    assert outcome.error.startswith(f"{name}: ")
    assert "in body" in outcome.traceback
    assert "in execute" not in outcome.traceback
    assert outcome.details is not None
    assert (outcome.details["worker"], outcome.details["retries"]) == ("here", 0)


class Meta(type):
    """The class of a class that has no name to show."""

    @property
    def __name__(cls) -> str:
        raise RuntimeError("no name")


class Nameless(Exception, metaclass=Meta):
    """An error whose class has no name."""


class Closed(Exception):
    """An error whose attributes, and whose class, cannot be read."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Text(str):
    """A text with methods of its own."""

    def __format__(self, spec: str) -> str:
        raise RuntimeError("not to be formatted")


class Odd(Exception):
    """An error whose text is a subclass of `str`."""

    def __str__(self) -> str:
        return Text("odd")


@pytest.mark.parametrize("name", ["Nameless", "Closed", "Odd"])
def test_an_error_that_cannot_be_read_is_a_failure_too(name: str) -> None:
    """An error that raises when it is read is a failure of the task like any other."""

    def body(job: Job, context: Context) -> None:
        raise {"Nameless": Nameless, "Closed": Closed, "Odd": Odd}[name]()

    outcome = run(body)
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == name
    assert outcome.error.startswith(f"{name}: ")


@pytest.mark.parametrize("wait", [float("nan"), float("inf"), -1.0, 1e300])
def test_a_retry_after_no_time_comes_after_the_backoff(wait: float) -> None:
    """If `after_seconds` is no usable number, the backoff is used."""
    outcome = run(raising(RetryLater("busy", after_seconds=wait)))
    assert isinstance(outcome, Retry)
    assert abs(outcome.due_ms / 1000 - time.time()) < 86_400


def test_a_message_with_fewer_runs_than_none_ends() -> None:
    """A negative number of retries in a message counts as 0: otherwise it would be retried without end."""
    outcome = run(raising(RetryLater("busy")), retries=-(10**30))
    assert isinstance(outcome, Retry)
    assert Message.decode(outcome.message).retries == 1


def test_the_backoff_of_very_many_runs_is_its_limit() -> None:
    """A backoff whose power of two no float can hold is its limit."""
    assert 0 <= backoff_seconds(Handler(Job, number, retries=5_000), 5_000) <= 86_400


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
def test_what_may_be_meant_for_the_program_is_raised(error: BaseException) -> None:
    """These two are raised: they may be meant for the producer that runs a task itself."""
    with pytest.raises(type(error)):
        run(raising(error))


def test_a_retry_is_the_same_message_but_for_what_changes() -> None:
    """A retry has the message's headers, batch, unique key and arguments. It is due by the server's clock."""
    headers = {"x-tenant": "one"}
    outcome = run(raising(RetryLater("busy", after_seconds=2)), batch="b", claim="k", headers=headers)
    assert isinstance(outcome, Retry)
    again = Message.decode(outcome.message)
    assert (again.retries, again.batch, again.unique_key, again.sent_ms) == (1, "b", "k", 1_000)
    assert again.headers["x-tenant"] == "one"
    assert again.arguments[1] == {"n": 3}
    assert again.due_ms == outcome.due_ms
    last = run(raising(RetryLater("busy")), retries=1)
    assert isinstance(last, DeadLetter)
    assert (last.reason, last.error) == ("RetryLater", "RetryLater: busy")


def test_a_value_is_kept_for_a_batch_alone() -> None:
    """Only the value of a task in a batch is kept. One that is too long is a failure with the remedy."""
    assert run(number) == Succeeded(None, "3")
    assert run(number, batch="b") == Succeeded('{"value":3}', "3")
    long = run(returning("x" * RESULT_LENGTH), batch="b")
    assert isinstance(long, DeadLetter)
    assert "store it elsewhere" in long.error


def test_a_value_that_cannot_be_shown_is_no_failure() -> None:
    """A task whose value cannot be shown has succeeded."""

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    outcome = run(returning(Shy()))
    assert isinstance(outcome, Succeeded)
    assert "Shy" in outcome.shown


def test_a_cancelled_task_and_a_bad_contract_have_outcomes_of_their_own() -> None:
    """`Cancelled` is no failure. The handler is not called for fields that do not fit the contract."""
    assert isinstance(run(raising(Cancelled("stopped"))), CancelledOutcome)
    bad = run(raising(AssertionError("not reached")), kwargs={"n": "many"})
    assert isinstance(bad, DeadLetter)
    assert bad.reason == "bad contract"
    assert "execute.job does not fit its contract: n" in bad.error


def test_a_secret_is_cut_out_of_all_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A hidden value is removed from the error, its traceback, the shown result and the log."""
    caplog.set_level(logging.INFO, "millpond.tasks")
    kwargs = {"secret": "do-not-show-me"}

    def blurt(job: Job, context: Context) -> str:
        if job.n:
            return job.secret
        raise ValueError(job.secret)

    outcomes = [run(blurt, kwargs=kwargs), run(blurt, kwargs={**kwargs, "n": 1})]
    assert "do-not-show-me" not in repr(outcomes) + caplog.text
    assert caplog.text.count("[redacted]") >= 2


def test_middleware_runs_around_the_handler_outermost_first() -> None:
    """Each middleware gets the job and the context, and the result or the error of the next one."""
    seen: list[Any] = []

    class Note(Middleware):
        def __init__(self, name: str) -> None:
            self.name = name

        def around_executing(self, job: Any, context: Context, call_next: Any) -> Any:
            seen.append((self.name, job.n))
            try:
                return call_next(job, context) + 1
            except ValueError as error:
                raise FinalError(f"{self.name} says {error}") from None

    middleware = (Note("outer"), Note("inner"))
    assert run(number, middleware=middleware) == Succeeded(None, "5")
    assert seen == [("outer", 3), ("inner", 3)]
    failed = run(raising(ValueError("no")), middleware=middleware)
    assert isinstance(failed, DeadLetter)
    assert failed.error == "FinalError: inner says no"


class Around(Middleware):
    """A middleware with the given `around_executing`."""

    def __init__(self, function: Callable[[Any, Context, Any], Any]) -> None:
        self.function = function

    def around_executing(self, job: Any, context: Context, call_next: Any) -> Any:
        return self.function(job, context, call_next)


def test_a_middleware_that_does_not_call_the_handler_fails_the_task() -> None:
    """A task whose handler did not run has not succeeded. The error names the middleware that forgot it."""

    class Forgets(Middleware):
        def around_executing(self, job: Any, context: Context, call_next: Any) -> Any:
            """Do nothing."""

    outer, inner = Around(lambda job, context, call_next: call_next(job, context)), Forgets()
    for middleware in ((inner,), (outer, inner), (inner, outer)):
        outcome = run(raising(AssertionError("not reached")), middleware=middleware)
        assert isinstance(outcome, DeadLetter)
        assert outcome.reason == "MiddlewareError"
        assert outcome.error.startswith(
            "MiddlewareError: Forgets.around_executing returned None and did not call call_next, so"
        )


def test_a_middleware_may_answer_in_place_of_the_handler() -> None:
    """A value is an answer, and so is an error. The handler need not run for them."""
    body = raising(AssertionError("not reached"))
    assert run(body, middleware=(Around(lambda *_: "cached"),)) == Succeeded(None, "'cached'")

    def skip(*_: Any) -> None:
        raise Cancelled("not today")

    assert run(body, middleware=(Around(skip),)) == CancelledOutcome("Cancelled: not today")


def test_a_middleware_that_forgets_to_return_loses_no_result() -> None:
    """The value of the handler stands, and so does an outcome, as Celery's tracer returns it."""

    def forget(job: Any, context: Context, call_next: Any) -> None:
        call_next(job, context)

    middleware = (Around(forget), Around(forget))
    assert run(number, middleware=middleware, batch="b") == Succeeded('{"value":3}', "3")
    failed = DeadLetter("rejected", "rejected")
    assert run(returning(failed), middleware=middleware) == failed
    assert run(returning(None), middleware=middleware) == Succeeded()


@pytest.mark.parametrize("batch", [None, "b"])
def test_a_value_whose_code_did_not_run_is_no_success(batch: str | None) -> None:
    """A decorator may hide that a handler or a middleware is async or has a `yield`: nothing of it ran."""

    async def later(*_: Any) -> int:
        return 1

    def yielding(*_: Any) -> Iterator[int]:
        yield 1

    for function in (later, yielding):
        outcomes = [
            run(function, batch=batch),
            run(number, middleware=(Around(function),), batch=batch),
        ]
        for outcome in outcomes:
            assert isinstance(outcome, DeadLetter)
            assert outcome.error.startswith("TypeError: the handler, or a middleware around it, returned a ")


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b"{no", "cannot be decoded"), (b"[[], {}]", "invalid message"), (b'[[], "x", {}]', "invalid message")],
)
def test_a_body_that_cannot_be_read_is_a_dead_letter(body: bytes, reason: str) -> None:
    """A message whose arguments cannot be read is a dead letter with the reason, and is not handled."""
    sent = json.loads(compose(Job.kind, {}, queue="default", sent_at_ms=0).payload)
    sent["body"] = b64encode(body).decode()
    delivery = Delivery(Message.decode(json.dumps(sent)))
    outcome = execute(Handler(Job, raising(AssertionError())), delivery, Context())
    assert isinstance(outcome, DeadLetter)
    assert outcome.reason == reason


_tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Tenant(Middleware):
    """A tenant for the time of a run, and in log lines."""

    def around_executing(self, job: Any, context: Context, call_next: Callable[[Any, Context], Any]) -> Any:
        token = _tenant.set("acme")
        try:
            return call_next(job, context)
        finally:
            _tenant.reset(token)

    def log_fields(self, context: Context) -> dict[str, Any]:
        return {"tenant": _tenant.get()}


@contextmanager
def json_lines(*middleware: Middleware) -> Iterator[list[dict[str, Any]]]:
    """Log as JSON with this middleware beside the built-in one, and yield the list of the lines."""
    lines: list[dict[str, Any]] = []
    formatter = JsonFormatter(Hooks((*LOG_MIDDLEWARE, *middleware)))

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(formatter.format(record)))

    handler, tasks = Lines(), logging.getLogger("millpond.tasks")
    tasks.addHandler(handler)
    level = tasks.level
    tasks.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        tasks.removeHandler(handler)
        tasks.setLevel(level)


def test_a_middleware_redacts_the_line_about_a_success() -> None:
    """The value in it is free of hidden fields already; what else is secret only a middleware knows."""

    class Cards(Middleware):
        def redact(self, line: str, context: Context) -> str:
            return line.replace("4111", "****")

    with json_lines(Cards()) as lines:
        run(lambda _job, _context: "card 4111", middleware=(Cards(),))
    (line,) = (each["message"] for each in lines if "succeeded" in each["message"])
    assert line.endswith("'card ****'")


class FailingFields(Middleware):
    """A middleware whose fields cannot be read, each time for another reason."""

    def __init__(self) -> None:
        self.calls = 0

    def log_fields(self, context: Context) -> Any:
        self.calls += 1
        if self.calls == 1:
            raise KeyError("no tenant")
        return [None, {"tenant": Unspeakable()}, {(): "", 7: "seven"}][self.calls % 3]


def test_a_line_is_written_without_fields_that_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a task is lost for a field, and the first error of the middleware is logged, once."""
    monkeypatch.setattr("millpond.tasks.process.logs._failed_hooks", set())
    with json_lines(FailingFields(), Tenant()) as lines:
        for _ in range(6):
            run(number, id="mine")
    successes = [line for line in lines if "succeeded" in line["message"]]
    assert [(line["task"], line["tenant"]) for line in successes] == [("mine", "nobody")] * 6
    (report,) = (line for line in lines if line not in successes)
    assert report["message"].startswith("FailingFields.log_fields failed")
    assert "KeyError: 'no tenant'" in report["error"]


@pytest.mark.parametrize(
    ("redact", "fault"),
    [
        (lambda _line: {}["card"], "raised KeyError in "),
        (lambda _line: None, "returned NoneType"),
    ],
    ids=["raises", "returns nothing"],
)
@pytest.mark.parametrize(
    "make_formatter", [JsonFormatter, lambda hooks: PlainFormatter(logging.Formatter(), hooks)]
)
def test_a_text_that_cannot_be_redacted_is_left_out(redact: Any, fault: str, make_formatter: Any) -> None:
    """The line is written all the same, with a note that names the middleware in place of its text."""

    class Cards(Middleware):
        def redact(self, line: str, context: Context) -> str:
            return redact(line)  # type: ignore[no-any-return]

    formatter = make_formatter(Hooks((*LOG_MIDDLEWARE, Cards())))
    record = logging.LogRecord("shop", logging.INFO, __file__, 1, "card 4111", None, None)
    lines: list[str] = []
    run(lambda _job, _context: lines.append(formatter.format(record)))
    (line,) = lines
    assert f"[left out, as Cards.redact {fault}" in line
    assert "4111" not in line


@pytest.mark.parametrize(
    ("function", "ending"),
    [
        (number, "succeeded"),
        (raising(ValueError("no")), "raised unexpected"),
        (raising(FinalError("no")), "raised expected"),
        (raising(RetryLater("no")), "retry"),
        (raising(Cancelled("no")), "cancelled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("middleware", [(), (Tenant(),)], ids=["alone", "middleware"])
def test_every_line_about_an_end_has_the_fields_of_the_run(
    function: Any, ending: str, middleware: tuple[Middleware, ...]
) -> None:
    """Task, kind, batch and what middleware adds, as it is inside of the run. Nothing of it stays."""
    with json_lines(*middleware) as lines:
        run(function, middleware=middleware, id="mine", batch="books")
    (line,) = (each for each in lines if ending in each["message"])
    expected = {"task": "mine", "kind": Job.kind, "batch": "books"}
    if middleware:
        expected["tenant"] = "acme"
    assert {name: line.get(name) for name in expected} == expected
    assert (_tenant.get(), running_context()) == ("nobody", None)

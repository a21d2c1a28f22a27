"""Requests before their start: revoked or expired with a failing result backend; limits of their own."""

import json
from base64 import b64encode
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated
from celery import Celery
from celery.app import trace
from celery.backends.base import BaseBackend
from celery.exceptions import Retry
from celery.platforms import signals
from celery.signals import task_revoked
from celery.worker.state import revoked

from millpond.broker.celery.task_tracer import run_traced
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.delivery import Delivery, delivery_fields
from millpond.broker.message import BadMessage, Message
from millpond.broker.outcomes import NOT_RUN, DeadLetter, Expired, Outcome, Redeliver, encode_outcome
from millpond.worker.celery import slot
from millpond.worker.celery.kind_services import KindServices
from millpond.worker.celery.request import TERMINATED, PondRequest


class UnreachableBackend(BaseBackend):  # type: ignore[misc]
    """A result backend whose server cannot be reached."""

    def store_result(self, *_: Any, **__: Any) -> None:
        """Raise the error of a client without a connection."""
        raise ConnectionRefusedError("the results are away")


def request_of(
    headers: dict[str, Any], in_flight: InFlightMessages, body: bytes = b"[[], {}, {}]"
) -> PondRequest:
    """Return a request of a task of an application with an unreachable backend."""
    app = Celery("tills", backend=f"{__name__}:UnreachableBackend", set_as_current=False)

    @app.task(name="tills.count", shared=False)  # type: ignore[untyped-decorator]
    def count() -> None:
        """Not called."""

    envelope = {
        "body": b64encode(body).decode(),
        "content-type": "application/json",
        "headers": {"id": "one", "task": "tills.count", **headers},
        "properties": {"body_encoding": "base64"},
    }
    services: Any = SimpleNamespace(
        app=app,
        hostname="here",
        eventer=None,
        in_flight=in_flight,
        threads=object(),
        limits_logged=False,
        outcome_hooks=((), ()),
        remembers_successes=False,
    )
    services.on_limits_of_call = partial(KindServices.on_limits_of_call, services)
    return PondRequest(Delivery(Message.decode(json.dumps(envelope))), count, services)


@pytest.mark.parametrize(
    ("headers", "outcome"), [({"expires": "2020-01-01T00:00:00+00:00"}, Expired()), ({}, NOT_RUN)]
)
def test_an_unreachable_result_backend_does_not_keep_a_delivery_from_its_outcome(
    headers: dict[str, Any], outcome: Outcome, caplog: pytest.LogCaptureFixture
) -> None:
    """The error is logged. If it were raised, the worker would take its own connection for a broken one."""
    in_flight = InFlightMessages()
    request = request_of(headers, in_flight)
    if not headers:
        revoked.add("one")
    try:
        assert request.revoked()
    finally:
        revoked.discard("one")
    assert [ended for _, ended in in_flight.finished] == [outcome]
    assert request.delivery.needs_notice
    assert "did not take how task tills.count[one] ended" in caplog.text


@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
def test_a_result_that_the_backend_does_not_take_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Celery's tracer raises the backend's error then, with no line about the task."""
    request = request_of({}, InFlightMessages())
    task = request.task
    task.__trace__ = trace.build_tracer(task.name, task, task.app.loader, "here", app=task.app)
    with pytest.raises(ConnectionRefusedError):
        run_traced(task, request.delivery, "here")
    assert "did not take how task tills.count[one] ended" in caplog.text
    assert request.delivery.needs_notice
    assert encode_outcome(DeadLetter("Away", "Away: results", needs_notice=True))[:2] == (
        "notice bury",
        "failed",
    )


def test_a_child_returns_that_the_backend_is_to_be_notified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker process has another object of the delivery than its child."""

    def run(delivery: Delivery) -> Any:
        delivery.needs_notice = True
        return DeadLetter("Away", "Away: results"), 0.5, 0.1

    monkeypatch.setattr(slot, "run_delivery", run)
    returned = slot.run_in_child(*delivery_fields(request_of({}, InFlightMessages()).delivery))
    assert returned == (DeadLetter("Away", "Away: results", needs_notice=True), 0.5, 0.1)


@pytest.mark.filterwarnings("ignore:Exception raised outside body:RuntimeWarning")
def test_a_retry_that_the_backend_does_not_take_is_a_retry(caplog: pytest.LogCaptureFixture) -> None:
    """The next run was sent before: a failure would call the errbacks of a task that goes on."""
    request = request_of({}, InFlightMessages())
    task = request.task

    def run() -> None:
        raise Retry("busy", sig=task.s())

    task.run = run
    task.__trace__ = trace.build_tracer(task.name, task, task.app.loader, "here", app=task.app)
    with pytest.raises(Retry, match="busy"):
        run_traced(task, request.delivery, "here")
    assert not request.delivery.needs_notice
    assert "did not take" not in caplog.text


def test_an_expired_task_that_cannot_be_decoded_has_one_outcome() -> None:
    """Its consumer makes it a dead letter, for nothing was settled before."""
    in_flight = InFlightMessages()
    with pytest.raises(BadMessage):
        request_of({"expires": "2020-01-01T00:00:00+00:00"}, in_flight, b"no JSON").revoked()
    assert not in_flight.finished


def test_threads_name_the_first_time_limit_of_a_call_that_they_do_not_keep(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A thread cannot be killed, which the sender cannot know; prefork children keep the limit."""
    request = request_of({"timelimit": [2, 1]}, InFlightMessages())
    assert caplog.text.count("tills.count[one] was sent with a time limit, which is not kept") == 1
    PondRequest(request.delivery, request.task, request.services)
    request.services.limits_logged, request.services.threads = False, None
    PondRequest(request.delivery, request.task, request.services)
    request_of({"timelimit": [None, None]}, InFlightMessages())
    assert caplog.text.count("time limit") == 1


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("TERM", (Redeliver("SystemExit: -15"), 1.0, 1.0)),
        ("TERM", (DeadLetter("SystemExit", "-15"), 1.0, 1.0)),
        ("TERM", SystemExit(-15)),
        ("KILL", Terminated(9)),
    ],
)
def test_a_task_whose_child_gets_a_signal_is_terminated(name: str, end: Any) -> None:
    """SIGTERM raises `SystemExit` in a handler: the task does not fail or go back to its queue."""
    in_flight, sent = InFlightMessages(), []

    def note(sender: Any, **details: Any) -> None:
        sent.append([details["terminated"], details["signum"]])

    request = request_of({}, in_flight)
    request.services.chunks = SimpleNamespace(prepare_to_kill=lambda _: True)  # type: ignore[assignment]
    request.time_start, request.worker_pid = 1.0, 2
    task_revoked.connect(note)
    try:
        request.terminate(SimpleNamespace(terminate_job=lambda *_: None), f"SIG{name}")
        if isinstance(end, tuple):
            request.on_success(end)
        else:
            try:
                raise end
            except BaseException:
                request.on_failure(ExceptionInfo())
    finally:
        task_revoked.disconnect(note)
    assert [ended for _, ended in in_flight.finished] == [TERMINATED]
    assert sent == [[True, signals.signum(name)]]

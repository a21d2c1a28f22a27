"""Compose the messages of a Celery application's tasks, with the options and batches of Millpond's client.

Celery itself makes the message of a signature (`broker/celery/signatures.py`), and that of a `Call` if the
settings name the application. Without an application, the message of a `Call` is composed here, as JSON.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from millpond.broker.header_times import format_eta, parse_eta_ms
from millpond.broker.message import OWN, dump_json
from millpond.broker.outgoing import Outgoing, millpond_header
from millpond.producer.message import Call, Message, compose_job
from millpond.tasks.errors import BadContract, UnknownQueue
from millpond.tasks.middleware import Sending

if TYPE_CHECKING:
    from millpond.broker.celery.signatures import SignatureMessage


def is_celery_task(sendable: Any) -> bool:
    """True if the value is a call or a signature, also a signature that was read from JSON."""
    return isinstance(sendable, Call) or (isinstance(sendable, dict) and "subtask_type" in sendable)


def call_of(sendable: Any) -> Call:
    """Return a call, or a signature as a call: the form in which middleware sees a Celery task."""
    if isinstance(sendable, Call):
        return sendable
    kwargs = {} if sendable["subtask_type"] else sendable["kwargs"]  # the kwargs of a chain hold its tasks
    return Call(sendable["task"], *sendable["args"], **kwargs)


def compose_celery_task(
    message: Message,
    sending: Sending,
    *,
    read_now_ms: Callable[[], int],
    app: str | None,
    after: Mapping[str, Any] | None,
    on_routed: Callable[[str, str], None],
) -> Outgoing:
    """Compose the message of a Celery task, with the id and the batch of `sending`.

    `app` is the application that the settings name. `after` is the header of a batch callback. `read_now_ms`
    returns the broker's time; it is called once Celery has made the message. `on_routed` is called once the
    queue and the id of the message are known, and may add headers to `sending`. A frozen signature keeps its
    own id, and a chain has the id of its first task.

    Raises `UnknownQueue`, `BadContract`, `SettingsError`, and Celery's errors.
    """
    sendable: Any = message.contract
    if isinstance(sendable, Call):
        if app is None:
            return _compose_by_name(message, sending, read_now_ms(), after, on_routed)
        signature = _make_signature(sendable, app)
    else:
        signature = sendable
    composed = _compose_with_celery(message, signature, sending.id)
    on_routed(composed.queue, str(composed.envelope["headers"]["id"]))
    return _add_options(message, composed, sending, read_now_ms(), after)


def queue_of_call(call: Call, app: str | None) -> str:
    """Return the queue to which the application that the settings name routes a call.

    Raises `UnknownQueue` without an application, `SettingsError`, and Celery's errors.
    """
    if app is None:
        raise _unknown_queue_error(call.kind)
    return _compose_with_celery(Message(call), _make_signature(call, app), "").queue


def _make_signature(call: Call, app: str) -> Any:
    """Return the signature of a call. Raises `SettingsError`."""
    from millpond.tasks.celery_application import load_app

    return load_app(app).signature(call.kind, call.args, call.kwargs)


def _add_options(
    message: Message,
    composed: "SignatureMessage",
    sending: Sending,
    now_ms: int,
    after: Mapping[str, Any] | None,
) -> Outgoing:
    """Return a message that Celery made, with the times, the unique key and the headers of `sending`."""
    due_ms, expires_ms, deadline_ms = message.times_ms(now_ms)
    headers = composed.envelope["headers"]
    headers.update(sending.headers)
    if sending.traceparent is not None:
        headers["traceparent"] = sending.traceparent
    claim = None if message.claim_ms else message.once
    headers[OWN] = millpond_header(now_ms, sending.batch, after, claim)
    if due_ms is not None:
        headers["eta"] = format_eta(due_ms)
    if expires_ms is not None:
        headers["expires"] = format_eta(expires_ms)
    return Outgoing(
        sending.queue,
        sending.id,
        dump_json(composed.envelope),
        int(composed.envelope["properties"].get("priority") or 0),
        due_ms if due_ms is not None else parse_eta_ms(headers.get("eta")),
        sending.batch,
        message.once,
        message.claim_ms,
        deadline_ms,
    )


def _compose_with_celery(message: Message, signature: Any, task_id: str) -> "SignatureMessage":
    """Return the message that Celery makes of a signature. Options of `message` override the signature's."""
    from millpond.broker.celery import signatures

    options: dict[str, Any] = {}
    if message.id is not None or (
        signature["subtask_type"] is None and "task_id" not in signature["options"]
    ):
        options["task_id"] = task_id
    if message.queue is not None:
        options["queue"] = message.queue
    if message.priority:
        options["priority"] = message.priority
    return signatures.message_of_signature(signatures.signature_of(signature), options)


def _compose_by_name(
    message: Message,
    sending: Sending,
    now_ms: int,
    after: Mapping[str, Any] | None,
    on_routed: Callable[[str, str], None],
) -> Outgoing:
    """Compose the message of a call without its application.

    Raises `UnknownQueue` if no queue is given, and `BadContract` for arguments that are not JSON.
    """
    kind = sending.job.kind
    if message.queue is None:
        raise _unknown_queue_error(kind)
    on_routed(message.queue, sending.id)
    message.times_ms(now_ms)  # an error of a time is not one of the arguments
    try:
        return compose_job(message, sending, now_ms=now_ms, after=after)
    except (TypeError, ValueError) as error:
        raise BadContract(f"the arguments of {kind} cannot be written as JSON: {error}") from None


def _unknown_queue_error(kind: str) -> UnknownQueue:
    """Return the error for a call whose queue nothing names."""
    return UnknownQueue(
        f"the queue of {kind} is not known here: give queue=, send its signature, or name the "
        'application in millpond.toml, as in app = "proj"'
    )

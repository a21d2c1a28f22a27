"""Make the message of a Celery signature as its application would send it, without sending it.

Celery itself makes the message, so routes, serializers, annotations, base classes, `link` and the rest are
the application's. Only the last step of its channel, which puts a message on its queue, is replaced.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery
from celery.canvas import Signature, _chain, chord, group, maybe_signature

from millpond.broker.celery.queue_commands import is_remote_control

#: Application -> its catcher. One thread at a time uses them, under the lock.
_catchers: "WeakKeyDictionary[Celery, _MessageCatcher]" = WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class SignatureMessage:
    """A message as kombu's envelope, and the queue on which it belongs."""

    queue: str
    envelope: dict[str, Any]


def signature_of(fields: Mapping[str, Any]) -> Signature:
    """Return the signature with these fields.

    Raises `TypeError` for a group or a chord, and for a task that its application would run at once.
    """
    signature = fields if isinstance(fields, Signature) else maybe_signature(dict(fields))
    if signature.app.conf.task_always_eager:
        raise TypeError(
            f"{signature.task} is not sent: task_always_eager of its application runs tasks in the caller. "
            "Call its apply_async() for that, or set task_always_eager = False to send it"
        )
    if isinstance(signature, chord):
        raise TypeError(
            "a chord is sent by its own apply_async(), for Celery counts its parts; "
            "or send a batch with then= and the body"
        )
    if isinstance(signature, group):
        raise TypeError("a group is many tasks: give its tasks to send_many(), as in send_many(group.tasks)")
    return signature


def message_of_signature(signature: Signature, options: Mapping[str, Any]) -> SignatureMessage:
    """Return the message of a signature. `options` of `apply_async` override the signature's.

    Raises Celery's errors, and `TypeError` for a signature that begins with more than one message.
    """
    with _lock:
        catcher = _catchers.get(signature.app)
        if catcher is None:
            catcher = _catchers[signature.app] = _MessageCatcher(signature.app)
        return catcher.make_message(signature, options)


class _MessageCatcher:
    """A producer of an application that keeps the messages of tasks instead of sending them."""

    def __init__(self, app: Celery) -> None:
        self._made: list[SignatureMessage] = []
        channel = app.connection_for_write().channel()
        self._send_message = channel._put
        channel._put = self._keep_message
        self._producer = app.amqp.Producer(channel, auto_declare=False)

    def _keep_message(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Keep the message of a task. Send a message of remote control: the event that a task was sent."""
        if is_remote_control(queue):
            self._send_message(queue, message, **kwargs)
        else:
            self._made.append(SignatureMessage(queue, message))

    def make_message(self, signature: Signature, options: Mapping[str, Any]) -> SignatureMessage:
        """Return the one message with which a signature begins. Raises `TypeError` for several."""
        self._made.clear()
        first, options = signature.clone(), dict(options)
        if isinstance(first, _chain):  # a chain would not pass the producer on to the first of its tasks
            first, options["chain"] = _split_chain(first, options.pop("link_error", None))
        first.apply_async(producer=self._producer, retry=False, add_to_parent=False, **options)
        if len(self._made) == 1:
            return self._made[0]
        raise TypeError(
            f"{signature.task} begins with {len(self._made)} messages: send() takes one task, or a chain "
            "that begins with one"
        )


def _split_chain(chain: Any, link_error: Any) -> tuple[Signature, list[Signature] | None]:
    """Return the first task of a chain, and the others in reverse order, as the first one's message has them.

    Without others, the second value is None.
    """
    options = chain.options
    tasks, _results = chain.prepare_steps(
        chain.args, {}, chain.tasks, link_error=options.get("link_error", link_error), app=chain.app
    )
    if "link" in options:
        tasks[0].extend_list_option("link", options["link"])
    first = tasks.pop()
    return first, tasks or None

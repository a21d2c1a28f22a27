"""Make the messages of a Celery signature as its application would send them, and send nothing.

Celery itself makes them: routes, serializers, annotations, base classes, `link` and the rest are the
application's. The last step alone, which puts a message on its queue, is taken from its channel.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from celery import Celery
from celery.canvas import Signature, _chain, chord, group, maybe_signature

from millpond.broker.celery.queue_commands import is_remote_control

#: An application's producer that sends nothing, and the messages that it made. One thread at a time uses it.
_catching: "WeakKeyDictionary[Celery, _MessageCatcher]" = WeakKeyDictionary()
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class SignatureMessage:
    """A message and the queue that it is for."""

    queue: str
    envelope: dict[str, Any]


def signature_of(item: Mapping[str, Any]) -> Signature:
    """Return the signature of one task or of a chain. Raises `TypeError` for a group or a chord."""
    signature = maybe_signature(dict(item)) if not isinstance(item, Signature) else item
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

    Raises Celery's errors, and `TypeError` for a canvas that is more than one message at first.
    """
    with _lock:
        catching = _catching.get(signature.app)
        if catching is None:
            catching = _catching[signature.app] = _MessageCatcher(signature.app)
        return catching.make_message(signature, options)


class _MessageCatcher:
    """A channel's producer that keeps the messages it is given instead of sending them."""

    def __init__(self, app: Celery) -> None:
        self._made: list[SignatureMessage] = []
        channel = app.connection_for_write().channel()
        self._put = channel._put
        channel._put = self._keep_message
        self._producer = app.amqp.Producer(channel, auto_declare=False)

    def _keep_message(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Keep a message instead of putting it on its queue. Messages of remote control are sent."""
        if is_remote_control(queue):  # the event that a task was sent
            self._put(queue, message, **kwargs)
        else:
            self._made.append(SignatureMessage(queue, message))

    def make_message(self, signature: Signature, options: Mapping[str, Any]) -> SignatureMessage:
        """Return the one message with which a signature begins. Raises `TypeError` for several."""
        self._made.clear()
        sent, own = signature.clone(), dict(options)
        if isinstance(sent, _chain):  # which does not pass a producer on to the first of its tasks
            sent, own["chain"] = _split_chain(sent, own.pop("link_error", None))
        sent.apply_async(producer=self._producer, retry=False, add_to_parent=False, **own)
        if len(self._made) == 1:
            return self._made[0]
        raise TypeError(
            f"{signature.task} begins with {len(self._made)} messages: send() takes one task, or a chain "
            "that begins with one"
        )


def _split_chain(chain: Any, link_error: Any) -> tuple[Signature, list[Signature] | None]:
    """Return the first task of a chain, and the rest in reverse order, as Celery sends it."""
    options = chain.options
    tasks, _results = chain.prepare_steps(
        chain.args, {}, chain.tasks, link_error=options.get("link_error", link_error), app=chain.app
    )
    if "link" in options:
        tasks[0].extend_list_option("link", options["link"])
    first = tasks.pop()
    return first, tasks or None

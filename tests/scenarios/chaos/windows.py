"""The windows in which a process is killed: for each transport, after one step and before the next."""

from collections.abc import Callable
from typing import Any

from tests.scenarios.chaos.faulty import Condition, after, always, before


def _carried_retry(_intake: Any, turn: Any, _reply: Any) -> bool:
    from millpond.broker.outcomes import Retry

    return any(isinstance(outcome, Retry) for _, outcome in turn.outcomes)


def _brings_messages(_intake: Any, _turn: Any, reply: Any) -> bool:
    return bool(reply.messages)


def _brings_swept(_intake: Any, _turn: Any, reply: Any) -> bool:
    return any(message.deliveries for message in reply.messages)


_REPLY = "millpond.broker.consume.fetcher:Fetcher._accept_reply"

#: Transport and window: the process dies before or after a call of this function that meets the condition.
WINDOWS: dict[tuple[str, str], tuple[Callable[..., None], str, Condition]] = {
    ("stock", "pop to record"): (before, "kombu.transport.redis:QoS.append", always),
    ("pond", "pop to record"): (before, _REPLY, _brings_messages),
    ("stock", "publish to return"): (after, "kombu.transport.redis:Channel._put", always),
    ("pond", "publish to return"): (after, "millpond.broker.publish:_run_calls", always),
    ("stock", "body to settle"): (before, "celery.worker.request:Request.acknowledge", always),
    ("pond", "body to settle"): (before, "millpond.worker.celery.request:PondRequest.on_success", always),
    ("stock", "sweep to requeue"): (before, "kombu.transport.redis:QoS.restore_by_tag", always),
    ("pond", "sweep to requeue"): (before, _REPLY, _brings_swept),
    ("stock", "retry to acknowledge"): (before, "celery.worker.request:Request.on_retry", always),
    ("pond", "retry to acknowledge"): (before, _REPLY, _carried_retry),
}  # fmt: skip

"""The windows: for each transport, the step at which one thing is done and the next is not."""

from collections.abc import Callable
from typing import Any

from tests.scenarios.chaos.faulty import after, before


def _carried_retry(_intake: Any, turn: Any, _reply: Any) -> bool:
    from millpond.broker.outcomes import Retry

    return any(isinstance(outcome, Retry) for _, outcome in turn.outcomes)


def _brings_messages(_intake: Any, _turn: Any, reply: Any) -> bool:
    return bool(reply.messages)


def _brings_swept(_intake: Any, _turn: Any, reply: Any) -> bool:
    return any(message.deliveries for message in reply.messages)


def _stock_pop() -> None:
    from kombu.transport.redis import QoS

    before(QoS, "append")


def _pond_pop() -> None:
    from millpond.broker.consume.fetcher import Fetcher

    before(Fetcher, "_accept_reply", _brings_messages)


def _stock_publish() -> None:
    from kombu.transport.redis import Channel

    after(Channel, "_put")


def _pond_publish() -> None:
    from millpond.broker import publish

    after(publish, "_run_calls")


def _stock_settle() -> None:
    from celery.worker.request import Request

    before(Request, "acknowledge")


def _pond_settle() -> None:
    from millpond.worker.celery.request import PondRequest

    before(PondRequest, "on_success")


def _stock_sweep() -> None:
    from kombu.transport.redis import QoS

    before(QoS, "restore_by_tag")


def _pond_sweep() -> None:
    from millpond.broker.consume.fetcher import Fetcher

    before(Fetcher, "_accept_reply", _brings_swept)


def _stock_retry() -> None:
    from celery.worker.request import Request

    before(Request, "on_retry")


def _pond_retry() -> None:
    from millpond.broker.consume.fetcher import Fetcher

    before(Fetcher, "_accept_reply", _carried_retry)


WINDOWS: dict[tuple[str, str], Callable[[], None]] = {
    ("stock", "pop to record"): _stock_pop,
    ("pond", "pop to record"): _pond_pop,
    ("stock", "publish to return"): _stock_publish,
    ("pond", "publish to return"): _pond_publish,
    ("stock", "body to settle"): _stock_settle,
    ("pond", "body to settle"): _pond_settle,
    ("stock", "sweep to requeue"): _stock_sweep,
    ("pond", "sweep to requeue"): _pond_sweep,
    ("stock", "retry to acknowledge"): _stock_retry,
    ("pond", "retry to acknowledge"): _pond_retry,
}

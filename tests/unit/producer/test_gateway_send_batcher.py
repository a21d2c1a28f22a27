"""How the tasks of many requests share calls to the broker."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from millpond.producer.client import Client
from millpond.producer.gateway.send_batcher import MESSAGES_A_CALL, OverflowPolicies, SendBatcher
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Sent
from millpond.tasks.squares.contract import Square


class Slow:
    """Send nothing; note each call, the first of which waits until it is told to go on."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, list[Any]]] = []
        self.called, self.go_on = threading.Event(), threading.Event()

    def send_each(self, messages: Sequence[Message], *, batch: str | None, **_: Any) -> Iterator[Sent]:
        self.calls.append((batch, [cast(Square, message.contract).n for message in messages]))
        self.called.set()
        self.go_on.wait(30)
        for message in messages:
            yield Sent(str(cast(Square, message.contract).n), "default")


def sent_during_the_first_call(*tasks: tuple[int, str | None]) -> tuple[Slow, list[str]]:
    """Send one task, and the others during its call; return the calls and the ids of the answers."""
    client = Slow()

    async def run() -> list[str]:
        with ThreadPoolExecutor(4) as threads:
            sends = SendBatcher(cast(Client, client), threads, cast(OverflowPolicies, None))

            async def one(n: int, batch: str | None) -> str:
                return (await sends.send(Message(Square(n=n)), overflow="reject", batch=batch)).id

            first = asyncio.create_task(one(-1, None))
            await asyncio.to_thread(client.called.wait, 30)
            others = [asyncio.create_task(one(n, batch)) for n, batch in tasks]
            await asyncio.sleep(0)
            client.go_on.set()
            return list(await asyncio.gather(first, *others))

    return client, asyncio.run(run())


def test_tasks_that_arrive_during_a_call_share_the_next() -> None:
    """A lone task is sent at once; tasks that arrive meanwhile share the next calls, each with its answer."""
    count = MESSAGES_A_CALL + 50
    client, ids = sent_during_the_first_call(*((n, None) for n in range(count)))
    assert [len(ns) for _, ns in client.calls] == [1, MESSAGES_A_CALL, 50]
    assert [n for _, ns in client.calls for n in ns] == list(range(-1, count))
    assert ids == [str(n) for n in range(-1, count)]


def test_batches_take_turns() -> None:
    """Tasks of one batch share a call although others came between, and a full batch keeps none waiting."""
    many = [(n, "a") for n in range(MESSAGES_A_CALL + 1)]
    client, _ = sent_during_the_first_call((-2, "b"), *many, (-3, "b"), (-4, None))
    assert [(batch, ns[:2], len(ns)) for batch, ns in client.calls[1:]] == [
        ("b", [-2, -3], 2),
        ("a", [0, 1], MESSAGES_A_CALL),
        (None, [-4], 1),
        ("a", [MESSAGES_A_CALL], 1),
    ]

"""How the tasks of many requests share calls to the broker."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from millpond.producer.client import Client
from millpond.producer.gateway.send_batcher import MESSAGES_A_CALL, SendBatcher
from millpond.producer.message import Message
from millpond.producer.send_outcomes import Sent
from millpond.tasks.squares.contract import Square


class Slow:
    """Send nothing; note each call, the first of which waits for `go_on`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str | None, list[Any]]] = []
        self.called, self.go_on = threading.Event(), threading.Event()

    def send_each(self, messages: Sequence[Message], *, batch: str | None, **_: Any) -> Iterator[Sent]:
        self.calls.append((batch, [cast(Square, message.contract).n for message in messages]))
        self.called.set()
        self.go_on.wait(30)
        for message in messages:
            yield Sent(str(cast(Square, message.contract).n), "default")


def sent_during_the_first_call(
    *tasks: tuple[int, str | None], tokens: dict[int, str] | None = None
) -> tuple[Slow, list[str]]:
    """Send one task, and the others during its call; return the calls and the ids of the answers.

    `tokens` names the senders of those that "one" does not send.
    """
    client = Slow()

    async def run() -> list[str]:
        with ThreadPoolExecutor(4) as threads:
            sends = SendBatcher(cast(Client, client), threads)

            async def one(n: int, batch: str | None) -> str:
                token = (tokens or {}).get(n, "one")
                sent = await sends.send(Message(Square(n=n)), token=token, overflow="reject", batch=batch)
                return sent.id

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


def test_tokens_take_turns() -> None:
    """A task waits for one call of another token, however many batches that token sends into; single tasks of
    two tokens share a call."""
    many: list[tuple[int, str | None]] = [(n, f"batch {n}") for n in range(30)]
    client, _ = sent_during_the_first_call(
        *many, (50, "mine"), (51, None), (31, None), tokens={50: "a", 51: "a"}
    )
    assert [ns for _, ns in client.calls[1:5]] == [[0], [50], [1], [51, 31]]

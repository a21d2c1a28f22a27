"""The event loop's time is shared among tokens, whatever one of them asks."""

import asyncio
import time

import pytest

from millpond.producer.gateway.loop_shares import MANY_REQUESTS, LoopShares
from millpond.producer.gateway.priority_selector import SocketPriority

pytestmark = pytest.mark.anyio
USED_SECONDS = 0.1


async def use(shares: LoopShares, token: str, seconds: float = USED_SECONDS) -> None:
    """Occupy the loop for so long in one step."""

    async def occupy() -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        await asyncio.sleep(0)

    await shares.wait_turn(token)
    await shares.run_metered(token, occupy())


async def test_a_token_above_its_share_waits_for_the_others_of_now() -> None:
    """Fifty requests of one token start one after another; one of another token overtakes what waits."""
    order: list[str] = []

    async def ask(shares: LoopShares, token: str) -> None:
        await use(shares, token, 0.005)
        order.append(token)

    shares = LoopShares()
    await ask(shares, "client")
    await use(shares, "abuser")
    many = [asyncio.create_task(ask(shares, "abuser")) for _ in range(50)]
    await asyncio.sleep(0)  # these stand in line
    await ask(shares, "client")
    for each in many:
        each.cancel()
    assert order == ["client", "client"]


async def test_a_token_that_is_alone_waits_for_nothing() -> None:
    """A turn of the only token is there at once, however much it used."""
    shares = LoopShares()
    await use(shares, "alone")
    turn = shares.wait_turn("alone")
    try:
        turn.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits")


async def test_what_a_client_that_went_left_in_line_holds_up_nobody() -> None:
    """A request behind cancelled ones starts."""
    shares = LoopShares()
    await use(shares, "other", 0.0)
    await use(shares, "token")
    gone = [asyncio.create_task(shares.wait_turn("token")) for _ in range(3)]
    await asyncio.sleep(0)
    for each in gone:
        each.cancel()
    async with asyncio.timeout(30):
        await shares.wait_turn("token")


async def test_errors_and_answers_pass_through_the_meter() -> None:
    """A cancelled call ends as cancelled, and a call that fails fails."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    shares = LoopShares()
    await shares.wait_turn("token")
    ended = await asyncio.gather(shares.run_metered("token", fail()), return_exceptions=True)
    assert isinstance(ended[0], ValueError)
    waiting = asyncio.create_task(shares.run_metered("token", asyncio.sleep(60)))
    await asyncio.sleep(0)
    waiting.cancel()
    ended = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)


class Placed:
    """A connection, and its priority."""

    priority = SocketPriority.NEW

    def set_priority(self, priority: SocketPriority) -> None:
        """Keep the priority."""
        self.priority = priority


async def test_a_token_with_many_requests_under_way_is_put_behind() -> None:
    """A token beside another that holds many requests goes into the background; alone it does not."""

    async def held(shares: LoopShares, *, beside: bool) -> tuple[Placed, Placed]:
        bulk, client = Placed(), Placed()
        for _ in range(2 * MANY_REQUESTS):
            shares.begin_request("bulk", bulk)
        if beside:
            shares.begin_request("client", client)
            await use(shares, "client", 0.0)
        await use(shares, "bulk", 0.0)
        return bulk, client

    bulk, client = await held(LoopShares(), beside=True)
    assert (bulk.priority, client.priority) == (SocketPriority.HEAVY, SocketPriority.FOREGROUND)
    bulk, _ = await held(LoopShares(), beside=False)
    assert bulk.priority is SocketPriority.FOREGROUND

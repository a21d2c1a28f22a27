"""One token's calls leave threads for those of another."""

import asyncio
from threading import Event

import pytest

from millpond.producer.gateway.thread_pools import LOOKUPS, ThreadPools


@pytest.mark.anyio
async def test_lookups_of_one_token_leave_half_of_the_threads() -> None:
    """While a token's lookups wait for the broker, more of them than there are threads, another's is made."""
    threads, answers = ThreadPools(max_streams=1, token_count=2), Event()
    try:
        many = [
            asyncio.create_task(threads.lookups.run("many", lambda: answers.wait(30)))
            for _ in range(2 * LOOKUPS)
        ]
        async with asyncio.timeout(20):
            assert await threads.lookups.run("another", lambda: 7) == 7
        answers.set()
        assert all(await asyncio.gather(*many))
    finally:
        answers.set()
        threads.shutdown()

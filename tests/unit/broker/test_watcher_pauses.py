"""When a process that watches a queue checks it again, after a check that has found messages."""

from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest

from millpond.broker.consume.watcher import SHORTEST_PAUSE_SECONDS, Watcher

QUEUE = "plain"


@pytest.fixture
def watcher() -> Watcher:
    """A watcher that has the first seat of a queue, and has sent a check whose reply is pending."""
    connection = SimpleNamespace(
        protocol=3,
        _parser=SimpleNamespace(set_invalidation_push_handler=lambda _handler: None),
        pack_commands=lambda commands: commands,
        send_packed_command=lambda *_packed, **_options: None,
    )
    store: Any = SimpleNamespace(prefix="")
    watcher = Watcher("process", store, lambda: connection)
    watcher.begin_tracking()
    watcher.on_reply(b"OK")
    watcher.on_tick([QUEUE], monotonic(), 5.0)
    watcher.on_reply(11)  # seat 1, and one seat is taken
    watcher.on_tick([QUEUE], monotonic(), 5.0)
    watcher.on_reply(b"OK")  # to CLIENT CACHING
    return watcher


def seconds_to_check(watcher: Watcher) -> float:
    """Return the seconds until the next check after a notice of a changed ready list."""
    watcher.on_notice([QUEUE.encode()])
    return watcher.due_at - monotonic()


@pytest.mark.parametrize("order", ["empty before the reply", "empty before the notice", "empty last"])
def test_a_queue_that_was_found_empty_is_checked_at_the_next_notice(watcher: Watcher, order: str) -> None:
    """The check has found a message, and this process has fetched it: the notice may be of the next one."""
    if order == "empty before the reply":
        watcher.on_found_empty([QUEUE])
    watcher.on_reply(b"1 -1")
    if order == "empty before the notice":
        watcher.on_found_empty([QUEUE])
    watcher.on_notice([QUEUE.encode()])
    if order == "empty last":
        watcher.on_found_empty([QUEUE])
    assert seconds_to_check(watcher) <= 0


def test_a_queue_with_messages_is_checked_after_a_pause(watcher: Watcher) -> None:
    watcher.on_reply(b"1 -1")
    assert 0 < seconds_to_check(watcher) <= SHORTEST_PAUSE_SECONDS

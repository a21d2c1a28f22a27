"""The last hour is read once; a later call reads new samples alone, and notices a reset history."""

from typing import Any

import pytest

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.keys import samples_key
from millpond.broker.stats import history
from millpond.broker.stats.history import HistoryCache

WHAT = ["queue:remembered", "pool:none"]


@pytest.fixture
def kept(store: Store) -> HistoryCache:
    """Take three samples of a queue, and read them once."""
    limits.declare_limits(store, "remembered", {}, authoritative=False)
    for _ in range(3):
        history.write_samples(store)
    past = HistoryCache(store)
    assert [len(each) for each in past.samples(WHAT)] == [3, 0]
    return past


def test_a_later_reading_reads_new_samples_alone(
    store: Store, kept: HistoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first reading an entry is read at most twice, and all are returned, in their order."""
    read: list[Any] = []
    sample = history.parse_sample
    monkeypatch.setattr(history, "parse_sample", lambda *entry: read.append(entry) or sample(*entry))
    history.write_samples(store)
    found = kept.samples(WHAT)
    assert len(read) == 1
    assert found == history.HistoryCache(store).samples(WHAT)


def test_no_more_is_kept_than_is_shown(
    store: Store, kept: HistoryCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples that left the stream leave the memory too."""
    monkeypatch.setattr(history, "KEPT", 4)
    for _ in range(3):
        history.write_samples(store)
    assert kept.samples(WHAT) == history.HistoryCache(store).samples(WHAT)


def test_a_past_that_was_dropped_is_forgotten(store: Store, kept: HistoryCache) -> None:
    """When the server lost its samples, old ones are not shown beside new ones."""
    store.client.delete(samples_key("queue:remembered", store.prefix))
    assert kept.samples(WHAT) == [(), ()]
    history.write_samples(store)
    kept.samples(WHAT)
    store.client.delete(samples_key("queue:remembered", store.prefix))
    history.write_samples(store)
    [found, _] = kept.samples(WHAT)
    assert found == history.HistoryCache(store).samples(WHAT)[0]
    assert len(found) == 1

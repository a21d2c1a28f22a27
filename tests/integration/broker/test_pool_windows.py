"""The runs of a pool in the last minutes, as worker processes report them."""

from collections import Counter
from pathlib import Path

import pytest

from millpond.broker import server
from millpond.broker.connection import Store
from millpond.broker.keys import day_key, hours_key, window_key
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.broker.stats import days, window
from millpond.broker.stats.calls import add_counted_call
from millpond.broker.stats.window import Place, Window
from tests.conftest import Eventually
from tests.harness.one_worker import settings_for, workers
from tests.harness.permits import service


def last(store: Store, pool: str = "default", seconds: float = 60) -> Window:
    [found] = window.read_windows(store, [pool], now_ms=server.server_time_ms(store), seconds=seconds)
    return found


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_slots_that_wait_for_a_service_name_it(
    executor: str, url: str, plain_store: Store, tmp_path: Path, eventually: Eventually
) -> None:
    """Kinds, their means, the peer that slots wait for and the calls that they name are in the windows."""
    pool = {"concurrency": 2, "executor": executor}
    settings = settings_for(url, pool=pool, kinds=("bottleneck_kinds", "dependency_kinds"))
    with service(1, 0.1) as asked, workers(settings, tmp_path):
        message = [
            compose("bottleneck.ask", {"url": asked.url}, queue="default", sent_at_ms=0) for _ in range(60)
        ]
        publish(plain_store, message)
        eventually(lambda: last(plain_store).places and last(plain_store).ended >= 30, 20)
        seen = last(plain_store)
        [(kind, figures)] = seen.kinds.items()
        assert (kind, figures.failed) == ("bottleneck.ask", 0)
        assert 0.1 <= (figures.mean_service_seconds or 0) <= 0.6
        place, micros = seen.places.most_common(1)[0]
        assert (place.category, place.name, place.kind) == ("peer", asked.address, "bottleneck.ask"), (
            seen.places
        )
        assert (place.library, place.line.rpartition(":")[0]) == ("urllib", "bottleneck_kinds")
        assert micros > 0.5 * sum(seen.places.values())
        plain_store.client.delete("default")
        asked.seconds = 0.02
        named = [
            compose("dependency.named", {"url": asked.url, "items": n % 5}, queue="default", sent_at_ms=0)
            for n in range(40)
        ]
        publish(plain_store, named)
        crm = ("dependency.named", "crm")
        eventually(lambda: crm in last(plain_store).calls and last(plain_store).calls[crm].runs >= 40, 20)
        assert last(plain_store).calls[crm].mean_items == 2


def test_a_window_is_bounded(store: Store) -> None:
    """A window has a bounded number of kinds, and still has places beyond that number."""
    add_kinds(store, "p", window.MOST_FIELDS + 500)
    window.add_to_window(store, "p", {window.place_field(Place("peer", "late")): 5})
    seen = last(store, "p")
    assert seen.ended == window.MOST_FIELDS + 500
    assert seen.kinds["others"].ended == 500
    assert seen.places[Place("peer", "late")] == 5


def add_kinds(store: Store, pool: str, count: int) -> None:
    """Add a run of each of so many kinds to a pool's window, in heartbeats of 250."""
    for first in range(0, count, 250):
        kinds = [f"shop.orders.kind-{n}" for n in range(first, min(first + 250, count))]
        window.add_to_window(
            store, pool, {f"{what}:{kind}": 1 for what in ("ended", "service", "wait") for kind in kinds}
        )


def test_the_memory_of_a_thousand_kinds_in_a_hundred_pools_is_bounded(store: Store) -> None:
    """Windows of a hundred pools, a thousand kinds in each, take at most 150 MB, and end by themselves."""
    pools, measured = 100, [f"pool-{n}" for n in range(5)]
    for pool in measured:
        add_kinds(store, pool, 1_000)
    peers = [f"10.0.0.{n}:5432" for n in range(500)]
    places = {window.place_field(Place("peer", peer, "psycopg", "shop:1")): 9 for peer in peers}
    calls: Counter[str] = Counter()
    for peer in peers:
        add_counted_call(calls, "shop.orders", peer, 3, 0.1)
    window.add_to_window(store, measured[0], {**places, **calls})
    days.fold_if_due(store, measured)
    keys = [key for pool in measured for key in store.client.keys(f"{window_key(pool, store.prefix)}*")]
    most_kept = window.KEPT_MS // window.WINDOW_MS + 1
    largest = max(store.client.memory_usage(key, samples=0) for key in keys)
    mean = sum(store.client.memory_usage(key, samples=0) for key in keys) / len(keys)
    assert mean * most_kept * pools < 150e6, (mean, most_kept)
    assert largest * most_kept < 4e6
    assert all(0 < store.client.pttl(key) <= window.KEPT_MS for key in keys)
    for name, most in ((day_key, days.STEPS), (hours_key, days.HOURS)):
        streams = [name(pool, store.prefix) for pool in measured]
        entry = max(store.client.memory_usage(key, samples=0) for key in streams)
        assert entry * most * pools < 150e6, (entry, most)
        assert all(store.client.pttl(key) > 0 for key in streams)


def test_the_days_have_an_entry_each_five_minutes(store: Store) -> None:
    """Windows are folded once in five minutes, and once an hour, however many processes ask."""
    window.add_to_window(store, "p", {"ended:mail": 4, "service:mail": 2_000_000, "failed:mail": 1})
    for _ in range(3):
        days.fold_if_due(store, ["p"])
    [[(_hour, hour), (_at, kinds)]] = days.read_days(store, ["p"])
    for seen in (hour, kinds):
        assert (seen["mail"].ended, seen["mail"].failed, seen["mail"].mean_service_seconds) == (4, 1, 0.5)

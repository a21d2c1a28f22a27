"""What a pool did in the last minutes, as worker processes report it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millpond.broker import server
from millpond.broker.connection import Store, connect
from millpond.broker.message import compose
from millpond.broker.publish import publish
from millpond.broker.stats import window
from millpond.broker.stats.window import Place, Window
from tests.harness.one_worker import settings_for, workers
from tests.harness.permits import service

Eventually = Callable[..., Any]


def last(store: Store, pool: str = "default", seconds: float = 60) -> Window:
    [found] = window.read(store, [pool], now_ms=server.now_ms(store), seconds=seconds)
    return found


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_slots_that_wait_for_a_service_name_it(
    executor: str, url: str, kinds_path: None, tmp_path: Path, eventually: Eventually
) -> None:
    """Kinds, their means and the peer that slots wait for are in the windows within seconds."""
    pool = {"concurrency": 2, "executor": executor}
    settings, store = settings_for(url, pool=pool, kinds=("bottleneck_kinds",)), connect(url)
    with service(1, 0.1) as asked, workers(settings, tmp_path):
        message = [
            compose("bottleneck.ask", {"url": asked.url}, queue="default", sent_at_ms=0) for _ in range(60)
        ]
        publish(store, message)
        eventually(lambda: last(store).places and last(store).ended >= 30, 20)
        seen = last(store)
        [(kind, figures)] = seen.kinds.items()
        assert (kind, figures.failed) == ("bottleneck.ask", 0)
        assert 0.1 <= (figures.mean or 0) <= 0.6
        place, micros = seen.places.most_common(1)[0]
        assert (place.category, place.name, place.kind) == ("peer", asked.address, "bottleneck.ask"), (
            seen.places
        )
        assert (place.library, place.line.rpartition(":")[0]) == ("urllib", "bottleneck_kinds")
        assert micros > 0.5 * sum(seen.places.values())
        store.client.delete("default")
    store.close()


def test_a_window_is_bounded(store: Store) -> None:
    """However many kinds, places and errors there are, a window has a bounded number of fields."""
    fields = {f"ended:kind-{n}": 1 for n in range(window.MOST_FIELDS + 500)}
    for start in range(0, len(fields), 500):
        window.add(store, "p", dict(list(fields.items())[start : start + 500]))
    window.add(store, "p", {window.place_field(Place("peer", "late")): 5})
    seen = last(store, "p")
    assert seen.ended == window.MOST_FIELDS + 500
    assert seen.kinds["others"].ended == 500
    assert seen.places[Place("others")] == 5


def test_the_day_has_an_entry_each_five_minutes(store: Store) -> None:
    """Windows are folded into the day's history once in five minutes, however many processes ask."""
    window.add(store, "p", {"ended:mail": 4, "service:mail": 2_000_000, "failed:mail": 1})
    for _ in range(3):
        window.fold_day_if_due(store, ["p"])
    [[(_at, kinds)]] = window.read_day(store, ["p"])
    assert (kinds["mail"].ended, kinds["mail"].failed, kinds["mail"].mean) == (4, 1, 0.5)

"""The cost of calls beside their items, and the round trips of a run, from sums."""

import random
from collections import Counter

import pytest

from millpond.broker.stats.calls import CallFigures, add_call_field, add_connection, add_counted_call


def gathered(fields: Counter[str]) -> CallFigures:
    calls: dict[tuple[str, str], CallFigures] = {}
    for name, value in fields.items():
        add_call_field(calls, name.partition(":")[2], value)
    [figures] = calls.values()
    return figures


@pytest.mark.parametrize(("fixed", "each"), [(0.030, 0.001), (0.002, 0.010), (0.0, 0.010)])
def test_a_line_tells_the_cost_of_a_call_from_that_of_its_items(fixed: float, each: float) -> None:
    """From runs with one to nine items, a and b of R = a + b * items are found, b not too small."""
    chance, fields = random.Random(1), Counter[str]()
    for _ in range(500):
        items = chance.randint(1, 9)
        add_counted_call(fields, "order", "crm", items, (fixed + each * items) * chance.uniform(0.9, 1.1))
    line = gathered(fields).cost_line
    assert line is not None
    assert line[0] == pytest.approx(fixed, abs=0.003)
    assert 0.95 * each <= line[1] <= 1.2 * each + 0.0005


def test_items_that_do_not_vary_tell_nothing() -> None:
    """With the same number of items each time, or few runs, there is no line."""
    fields = Counter[str]()
    for _ in range(100):
        add_counted_call(fields, "order", "crm", 5, 0.1)
    assert gathered(fields).cost_line is None
    for items in (1, 9):
        few = Counter[str]()
        add_counted_call(few, "order", "crm", items, 0.1)
        assert gathered(few).cost_line is None


def test_round_trips_of_connections_that_stay_open_are_counted_by_time() -> None:
    """Twenty round trips in each tenth of a second are twenty for a run of a tenth."""
    fields = Counter[str]()
    for _ in range(30):
        add_connection(fields, "order", "crm", 40, 0.2)
    assert gathered(fields).round_trips(0.1) == pytest.approx(20)


def test_round_trips_of_connections_of_one_run_are_twice_those_seen() -> None:
    """Seen at a random moment of its run, a connection has had half of its round trips."""
    fields = Counter[str]()
    for trips in range(1, 21):
        add_connection(fields, "order", "crm", trips, None)
    assert gathered(fields).round_trips(0.1) == pytest.approx(20)


def test_fields_of_another_version_are_left_out() -> None:
    """An unknown name, or a text that is no kind and peer, is no figure."""
    calls: dict[tuple[str, str], CallFigures] = {}
    for rest in ("others", "new:[]", 'runs:["order"]', "runs:{", "runs:7"):
        add_call_field(calls, rest, 1)
    assert calls == {}

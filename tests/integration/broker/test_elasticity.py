"""Whether throughput grows with slots, measured on real pools that wait for real things."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from millpond.broker.connection import Store
from millpond.broker.limits import read_overrides
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.broker.stats.elasticity import Elasticity, read_elasticities, store_elasticity
from millpond.broker.stats.probe import Probe
from tests.conftest import Eventually
from tests.harness.one_worker import settings_for, workers
from tests.harness.permits import service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SLOTS = 8


def fill(store: Store, kind: str, count: int = 8_000, **fields: Any) -> None:
    publish(store, [compose(kind, fields, queue="default", sent_at_ms=0) for _ in range(count)])


@pytest.fixture
def probed(url: str, plain_store: Store, tmp_path: Path, eventually: Eventually) -> Callable[..., Elasticity]:
    """Run a pool of eight slots with a backlog of a kind, and probe it."""

    def probe(
        kind: str, *, executor: str = "threads", service_seconds: float = 0.05, **fields: Any
    ) -> Elasticity:
        table = {"concurrency": SLOTS, "prefetch": 8, "executor": executor}
        settings = settings_for(
            url,
            pool=table,
            queue={"bound": 10_000},
            kinds=("bottleneck_kinds",),
            probe_share=0,  # a pool that is behind is probed by its workers: two probes spoil each other
        )
        store = plain_store
        fill(store, kind, **fields)
        with workers(settings, tmp_path):
            eventually(lambda: int(store.client.hget("millpond:{default}:counters", "settled") or 0) > 10)
            found = Probe(store, ["default"], slots=SLOTS, service_seconds=service_seconds).run(
                max_seconds=120  # it ends when it is certain, later on a busy machine
            )
            store.client.delete("default")
        assert found is not None
        print(found)
        assert "probe" not in read_overrides(store, "default")
        store_elasticity(store, "default", found)
        assert read_elasticities(store, ["default", "other"]) == [(found, None), (None, None)]
        return found

    return probe


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_slots_that_only_wait_by_themselves_are_elastic(
    probed: Callable[..., Elasticity], executor: str
) -> None:
    """Where each task waits for something of its own, throughput is proportional to the slots."""
    found = probed("bottleneck.sleep", executor=executor, service_seconds=0.2, seconds=0.2)
    assert found.grows


@pytest.mark.parametrize("executor", ["threads", "prefork"])
def test_a_service_of_two_at_a_time_is_saturated(probed: Callable[..., Elasticity], executor: str) -> None:
    """Eight slots that wait for a service of two permits gain nothing of more."""
    with service(2, 0.03) as asked:
        found = probed("bottleneck.ask", executor=executor, service_seconds=0.12, url=asked.url)
    assert found.saturated


def test_a_lock_is_saturated(probed: Callable[..., Elasticity]) -> None:
    """Slots that take turns at a lock of the process gain nothing of more."""
    assert probed("bottleneck.locked", service_seconds=0.01 * SLOTS, seconds=0.01).saturated

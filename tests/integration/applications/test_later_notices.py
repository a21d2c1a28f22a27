"""Tasks that end while the server of their results is away: a worker notifies the result backend later."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.backends.base import BaseBackend

from millpond.broker.celery.backend_notices import notify_backend
from millpond.broker.connection import Store
from millpond.broker.errors import DeadLettered
from millpond.broker.inspect import depth as inspect_depth
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import NOT_RUN, REDELIVER, SUCCEEDED, DeadLetter, Expired, Outcome
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.worker.local.valkey import embedded_binary
from tests.applications.ways import Running, worker
from tests.harness.manual_consumer import ManualConsumer
from tests.harness.own_server import OwnServer, run_own_server

QUEUE = "noticed"
Marked = list[tuple[str, str, str]]


class RecordingBackend(BaseBackend):  # type: ignore[misc]
    """A result backend that records how tasks ended, or raises an error while it is away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.marked: Marked = []
        self.attempts, self.is_away = 0, False

    def store_result(self, task_id: str, result: Any, state: str, *_: Any, **__: Any) -> None:
        """Record the state and the error of a task."""
        self.attempts += 1
        if self.is_away:
            raise ConnectionRefusedError("the results are away")
        self.marked.append((task_id, state, str(result)))


@pytest.fixture
def app() -> Celery:
    """Return an application with one task."""
    made = Celery("counting", backend=f"{__name__}:RecordingBackend", set_as_current=False)

    @made.task(name="counting.count", shared=False)  # type: ignore[untyped-decorator]
    def count() -> None:
        """Not called."""

    made.finalize()
    return made


def settle_with_notices(store: Store, *outcomes: Outcome) -> None:
    """Settle a task by each outcome, none of which its result backend has taken. Their ids are t0, t1, …"""
    common: dict[str, Any] = {"queue": QUEUE, "sent_at_ms": 0, "ignore_result": False}
    publish(store, [compose("counting.count", {}, id=f"t{n}", **common) for n in range(len(outcomes))])
    consumer = ManualConsumer(store, QUEUE)
    consumer.fetch(len(outcomes))
    for delivery, outcome in zip(tuple(consumer.lease.in_flight.values()), outcomes, strict=True):
        delivery.needs_notice = True
        consumer.lease.queue_outcome(delivery, outcome)
    consumer.settle_and_fetch()


def test_the_backend_is_notified_later_of_an_end_that_it_did_not_take(store: Store, app: Celery) -> None:
    """Failed, cancelled and expired tasks are; the notice of a task that goes on or succeeded is not left."""
    failed = DeadLetter("ConnectionError", "ConnectionError: no\nroute ü", {"traceback": "a\nb"})
    settle_with_notices(store, failed, NOT_RUN, Expired(), DeadLetter("shed", ""), REDELIVER, SUCCEEDED)
    assert notify_backend(app, store, QueueKeys(QUEUE, store.prefix))
    assert app.backend.marked == [
        ("t0", "FAILURE", "ConnectionError: no route ü"),
        ("t1", "REVOKED", "revoked"),
        ("t2", "REVOKED", "expired"),
        ("t3", "FAILURE", "shed"),
    ]
    counters = inspect_depth.read_depth(store, QUEUE).counters
    assert (counters["dead"], counters["settled"], counters["redelivered"]) == (2, 3, 1)
    assert notify_backend(app, store, QueueKeys(QUEUE, store.prefix))
    assert len(app.backend.marked) == 4


def test_a_backend_that_is_away_is_tried_once_and_left_alone(store: Store, app: Celery) -> None:
    """The other notices wait, because each attempt may block the worker's event loop. They are next."""
    settle_with_notices(store, NOT_RUN, NOT_RUN, NOT_RUN)
    keys = QueueKeys(QUEUE, store.prefix)
    app.backend.is_away = True
    assert not notify_backend(app, store, keys)
    assert (app.backend.attempts, store.client.llen(keys.backend_notices)) == (1, 3)
    assert store.client.pttl(keys.backend_notices) > 0
    app.backend.is_away = False
    assert notify_backend(app, store, keys)
    assert [id for id, _, _ in app.backend.marked] == ["t1", "t2", "t0"]


@pytest.fixture
def results(tmp_path: Path) -> Iterator[OwnServer]:
    """Start the server of the results."""
    (tmp_path / "results").mkdir()
    with run_own_server(OwnServer(embedded_binary(), tmp_path / "results")) as server:
        yield server


@contextmanager
def slept_without_results(
    url: str, results: OwnServer, folder: Path, eventually: Callable[..., Any], **more: Any
) -> Iterator[tuple[Any, Running]]:
    """Kill the server of the results while a task runs. Yield the result of the task, and the worker."""
    env = {"APP_RESULTS": results.url, **more.pop("env", {})}
    paths, queues = [Path(__file__).parent], ("default",)
    with worker(
        "app", "orders", url, folder, eventually, paths=paths, queues=queues, more=env, **more
    ) as running:
        client = Celery("client", broker=url, backend=results.url, set_as_current=False)
        slept = client.send_task("orders.sleep", (3,), queue="default")
        eventually(lambda: f"orders.sleep[{slept.id}] received" in running.log)
        results.kill()
        # A client that subscribed before can miss a result that is stored while it connects again.
        reader = Celery("reader", backend=results.url, set_as_current=False)
        yield reader.AsyncResult(slept.id), running


@pytest.mark.timeout(240)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_result_of_the_time_without_a_backend_arrives(
    url: str, store: Store, results: OwnServer, tmp_path: Path, eventually: Callable[..., Any], pool: str
) -> None:
    """`.get()` raises the error that the dead letter shows, once the server of the results is back."""
    with slept_without_results(url, results, tmp_path, eventually, pool=pool) as (result, _):
        store = Store(store.client)
        eventually(lambda: inspect_depth.read_depth(store, "default").dead == 1, 60)
        results.start()
        eventually(lambda: result.state == "FAILURE", 90)
        with pytest.raises(DeadLettered, match="ConnectionError: "):
            result.get(timeout=5)
        eventually(lambda: not store.client.exists(QueueKeys("default", "").backend_notices))


@pytest.mark.timeout(240)
def test_a_slot_waits_for_the_backend_if_celery_always_retries(
    url: str, store: Store, results: OwnServer, tmp_path: Path, eventually: Callable[..., Any]
) -> None:
    """With `result_backend_always_retry` the result is stored once the server of the results is back."""
    env = {"APP_ALWAYS_RETRY": "1"}
    with slept_without_results(url, results, tmp_path, eventually, env=env) as (result, running):
        eventually(lambda: "Retrying" in running.log, 60)
        results.start()
        eventually(lambda: result.state == "SUCCESS", 90)
        assert result.get(timeout=5) is None
        assert inspect_depth.read_depth(Store(store.client), "default").dead == 0

"""Kill a process exactly in each window on kombu's own transport: the losses that Millpond's prevents."""

from collections.abc import Callable

import pytest

from tests.scenarios.chaos.left import waiting

pytestmark = [pytest.mark.slow, pytest.mark.evidence]


@pytest.fixture
def stock(bench: Callable) -> object:
    """Make a bench of stock Celery."""
    return bench("stock")


def test_stock_killed_between_the_pop_and_the_record(stock) -> None:
    """A worker that dies between the pop and the record loses the task for good: it is nowhere."""
    stock.send("one")
    assert waiting(stock.store) == {"one"}
    stock.run_until_killed("pop to record")
    assert not waiting(stock.store)
    assert not stock.runs()


def test_stock_producer_killed_before_it_is_told(stock, eventually) -> None:
    """A producer that repeats an unanswered send makes its task run twice."""
    assert stock.send("one", "publish to return") != 0
    assert stock.send("one") == 0
    stock.start_worker()
    eventually(lambda: len(stock.runs()) == 2, 60)


def test_stock_killed_between_the_body_and_its_acknowledgement(stock, eventually) -> None:
    """With late acknowledgement the task runs again, after the visibility time-out."""
    stock.send("one")
    stock.run_until_killed("body to settle")
    stock.start_worker()
    eventually(lambda: len(stock.runs()) == 2 and not waiting(stock.store), 60)


def test_stock_killed_while_it_restores_for_another(stock, eventually) -> None:
    """A worker that dies as it restores keeps every other from it until its lock runs out."""
    stock.send("one")
    stock.run_until_killed("body to settle")
    (stock.folder / "died").unlink()
    stock.run_until_killed("sweep to requeue")
    assert waiting(stock.store) == {"one"}
    assert stock.store.client.ttl("unacked_mutex") > 0


def test_stock_killed_between_the_retry_and_the_acknowledgement(stock, eventually) -> None:
    """The retry is published first and the run that asked for it not acknowledged: everything is doubled."""
    stock.send("one", retries=1)
    stock.run_until_killed("retry to acknowledge")
    stock.start_worker()
    eventually(lambda: len(stock.runs("retry")) == 2 and len(stock.runs()) == 2, 60)

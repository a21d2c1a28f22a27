"""A broker behind Sentinel: the master is killed, its replica takes over, and every client follows."""

from datetime import timedelta

import pytest

from millpond.broker.errors import BrokerError
from millpond.producer.client import Client
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import embedded
from tests.conftest import Eventually
from tests.harness.replicated_server import Replicated


@pytest.mark.slow
def test_a_fail_over_loses_nothing(replicated: Replicated, eventually: Eventually) -> None:
    """Messages of the replica run after it took over; meanwhile a send says why it fails."""
    master = replicated.master
    settings = Settings(broker_url=replicated.url, drain_seconds=5, broker_timeout_seconds=2)
    with embedded(settings, pools=["default"]), Client(settings=settings) as client:
        with client.batch() as batch:
            batch.send_many(Square(n=n) for n in range(20))
        assert batch.wait(timedelta(seconds=30)).succeeded == 20
        later = client.batch()
        later.send_many((Square(n=n) for n in range(20)), timeout=timedelta(seconds=5))
        assert master.client.wait(1, 5000) == 1, "the replica has it all"
        master.kill()
        refusals = []

        def is_closed() -> bool:
            try:
                later.send(Square(n=20))
                later.close()
            except BrokerError as error:
                refusals.append(str(error))
                return False
            return True

        eventually(is_closed, 60, every_seconds=0.2)
        assert all("broker" in refusal and "\n" not in refusal for refusal in refusals)
        summary = later.wait(timedelta(seconds=60))
        assert summary.complete
        assert summary.succeeded == summary.sent >= 21

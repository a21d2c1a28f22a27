"""Declare the kind of the tests with hosts: it tells a ledger that no fault touches where and when it ran."""

import json
import os
import time
from functools import cache
from socket import gethostname

from millpond.broker.connection import Store, connect
from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.handlers import body

#: Where the bodies find the ledger, and the list that holds it.
URL_VARIABLE = "LEDGER_URL"
EVENTS = "events"


class Work(Contract, kind="hosts.work"):
    """Occupy a slot for so long."""

    hold_seconds: float = 0.0


@cache
def _ledger() -> Store:
    return connect(os.environ[URL_VARIABLE], timeout_seconds=30)


def _note(event: str, id: str) -> None:
    line = json.dumps({"event": event, "id": id, "host": gethostname(), "at": time.time()})
    _ledger().client.rpush(EVENTS, line)


@body(Work)
def do_work(job: Work, context: Context) -> None:
    """Note the start, occupy the slot, note the end."""
    _note("started", context.id)
    time.sleep(job.hold_seconds)
    _note("ended", context.id)

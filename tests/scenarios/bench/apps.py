"""The applications that are measured, each with the same task.

They are run as `celery -A tests.scenarios.bench.apps:stock worker`, or `:moved` and `:pond`. The task does
nothing. If it has the time at which it was sent (monotonic ns, one clock for all processes of a machine), it
appends the time until its start to the file that `BENCH_STARTS` names.
"""

import os
import time
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from millpond.broker.consume.in_flight import InFlightMessages
from millpond.tasks.app import celery_app
from millpond.tasks.context import Context
from millpond.tasks.contract import Contract
from millpond.tasks.handlers import body
from millpond.tasks.settings import Settings
from millpond.worker.app import install_parts
from millpond.worker.celery.handler_task import register_handler

#: The messages that the stock worker prefetches for each slot. With so many it never waits for the broker.
STOCK_PREFETCH = 16

#: The messages that a process of Millpond prefetches: half as many in all as a stock worker.
POND_PREFETCH = 28


class Noop(Contract, kind="bench.noop", queue="default"):
    """Do nothing."""

    sent_ns: int = 0
    payload: str = ""
    hold_ms: float = 0


@body(Noop)
def noop(job: Noop, context: Context) -> None:
    """Record the time until the start, if the task has its time of sending, and sleep for `hold_ms`."""
    _note_start(job.sent_ns)
    if job.hold_ms:
        time.sleep(job.hold_ms / 1000)


@worker_ready.connect
def _note_ready(**_: Any) -> None:
    _append("BENCH_READY", b".")


def _note_start(sent_ns: int) -> None:
    if sent_ns:
        _append("BENCH_STARTS", f"{time.monotonic_ns() - sent_ns}\n".encode())


def _append(name: str, line: bytes) -> None:
    file = os.open(os.environ[name], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, line)
    os.close(file)


def make_stock(url: str) -> Celery:
    """Return stock Celery with late acknowledgement, tuned for throughput."""
    app = Celery("stock", broker=url, set_as_current=False)
    app.conf.update(
        task_acks_late=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=STOCK_PREFETCH,
        broker_connection_retry_on_startup=True,
        task_default_queue="default",
    )

    @app.task(name=Noop.kind, shared=False)
    def stock_noop(sent_ns: int = 0, payload: str = "") -> None:
        _note_start(sent_ns)

    return app


def make_moved(url: str) -> Celery:
    """Return the stock application on Millpond's transport."""
    app = make_stock(url)
    app.conf.broker_transport = "millpond.broker.transport:Transport"
    return app


def make_pond(url: str) -> Celery:
    """Return Millpond's application with the one kind."""
    settings = Settings(broker_url=url)
    app = celery_app(settings)
    install_parts(app, settings, InFlightMessages(prefetch=POND_PREFETCH))
    app.conf.worker_send_task_events = False  # as stock; the column with events turns both on
    from millpond.tasks.handlers import handlers_by_kind

    register_handler(app, handlers_by_kind()[Noop.kind], settings.table)
    return app


def __getattr__(name: str) -> Any:
    makers = {"stock": make_stock, "moved": make_moved, "pond": make_pond}
    if name not in makers:
        raise AttributeError(name)
    return makers[name](os.environ["BENCH_URL"])

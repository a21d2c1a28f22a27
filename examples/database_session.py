"""Middleware that opens a database session for each task: it is committed when the handler returns.

    MILLPOND_KINDS=database_session MILLPOND_MIDDLEWARE=database_session:DatabaseSession millpond worker
    default

`SHOP_DATABASE` names the database file. With SQLAlchemy it is the same: `context.state["session"] =
Session(engine)`.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from millpond import Context, Contract, Middleware, handler


class DatabaseSession(Middleware):
    """Gives each handler a session in `context.state`. It is rolled back if the handler raises."""

    def on_worker_start(self) -> None:
        """Create the table, once in each worker process."""
        with closing(connect()) as session, session:
            session.execute("create table if not exists orders (number integer primary key, total integer)")

    def around_executing(self, job: Any, context: Context, call_next: Callable[[Any, Context], Any]) -> Any:
        """Run a handler with a session. Commit its writes if it returns, roll them back if it raises."""
        with closing(connect()) as session, session:
            context.state["session"] = session
            return call_next(job, context)


class PlaceOrder(Contract, kind="shop.place-order"):
    number: int
    total: int


@handler(PlaceOrder)
def place_order(job: PlaceOrder, context: Context) -> None:
    """Write an order. A total below zero raises after the write, which is then rolled back."""
    context.state["session"].execute("insert into orders values (?, ?)", (job.number, job.total))
    if job.total < 0:
        raise ValueError("the total is below zero")


def connect() -> sqlite3.Connection:
    """Open the shop's database."""
    return sqlite3.connect(os.environ["SHOP_DATABASE"], timeout=30)

"""A tenant that travels with a task, through its handler to the tasks that the handler sends.

    MILLPOND_MIDDLEWARE=tenant_header:Tenants   # for producers and workers
    MILLPOND_KINDS=tenant_header millpond worker default

A web application sets `tenant` where a request comes in; nothing else in it names a tenant.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from millpond import Client, Context, Contract, Middleware, Sending, handler

#: The tenant on whose behalf this thread works.
tenant: ContextVar[str] = ContextVar("tenant", default="")


class Tenants(Middleware):
    """Carries the tenant in a header of each message."""

    def on_sending(self, sending: Sending) -> None:
        """Write the tenant of the sender."""
        if tenant.get():
            sending.headers["tenant"] = tenant.get()

    def around_executing(self, job: Any, context: Context, call_next: Callable[[Any, Context], Any]) -> Any:
        """Work on behalf of the tenant that the message names."""
        named = context.message.headers.get("tenant", "") if context.message else ""
        before = tenant.set(named)
        try:
            return call_next(job, context)
        finally:
            tenant.reset(before)


class Invoice(Contract, kind="shop.invoice"):
    order: int


class Receipt(Contract, kind="shop.receipt"):
    order: int
    batch: str


@handler(Invoice)
def invoice(job: Invoice, context: Context) -> str:
    """Send a receipt into the same batch, and return the tenant."""
    with Client() as client:
        client.send(Receipt(order=job.order, batch=context.batch or ""), batch=context.batch)
    return f"invoice {job.order} of {tenant.get()}"


@handler(Receipt)
def receipt(job: Receipt, context: Context) -> str:
    """Return the tenant, which the invoice's handler did not name."""
    return f"receipt {job.order} of {tenant.get()}"

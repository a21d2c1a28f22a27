"""Middleware that passes the current tenant to each task, and to the tasks that its handler sends.

    MILLPOND_MIDDLEWARE=tenant_header:Tenants   # for producers and workers
    MILLPOND_KINDS=tenant_header millpond worker default

A web application sets `tenant` when a request begins. No other code passes the tenant on.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from millpond import Client, Context, Contract, Middleware, Sending, handler

#: The tenant for whom this thread works.
tenant: ContextVar[str] = ContextVar("tenant", default="")


class Tenants(Middleware):
    """Carries the tenant in a header of each message."""

    def on_sending(self, sending: Sending) -> None:
        """Write the current tenant into the headers of a task that is sent."""
        if tenant.get():
            sending.headers["tenant"] = tenant.get()

    def around_executing(self, job: Any, context: Context, call_next: Callable[[Any, Context], Any]) -> Any:
        """Run a handler with the tenant that the message names as the current one."""
        sent_tenant = context.message.headers.get("tenant", "") if context.message else ""
        reset_token = tenant.set(sent_tenant)
        try:
            return call_next(job, context)
        finally:
            tenant.reset(reset_token)


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
    """Return the tenant, which came from the invoice's task by the middleware."""
    return f"receipt {job.order} of {tenant.get()}"

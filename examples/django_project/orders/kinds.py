"""Kinds of the application, and their handlers: workers find this module by its name."""

from millpond import Context, Contract, handler


class PackOrder(Contract, kind="orders.pack"):
    """Pack an order that is in the database."""

    order: int


@handler(PackOrder)
def pack(job: PackOrder, context: Context) -> str:
    """Pack an order."""
    from orders.models import Order

    found = Order.objects.get(pk=job.order)  # it is there: the task was sent when its transaction committed
    found.packed = True
    found.save()
    return found.item

"""The kinds of the application and their handlers. Workers find this module by its name."""

from millpond import Context, Contract, handler


class PackOrder(Contract, kind="orders.pack"):
    """Pack an order that is in the database."""

    order: int


@handler(PackOrder)
def pack(job: PackOrder, context: Context) -> str:
    """Mark an order as packed, and return its item."""
    from orders.models import Order

    order = Order.objects.get(pk=job.order)  # exists: the task was sent after the transaction committed
    order.packed = True
    order.save()
    return order.item

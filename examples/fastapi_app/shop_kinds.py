"""The kind of the shop and its handler: the application sends it, a worker runs it."""

from millpond import Context, Contract, handler


class PackOrder(Contract, kind="shop.pack"):
    """Pack an order."""

    item: str


@handler(PackOrder)
def pack(job: PackOrder, context: Context) -> str:
    """Return the item as packed."""
    return f"{job.item}, packed"

"""The pages of the shop: JSON."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse

from millpond.django import send_on_commit
from orders.kinds import PackOrder
from orders.models import Order
from orders.tasks import count_orders


def order(request: HttpRequest) -> JsonResponse:
    """Store an order, and send a task that packs it when the transaction commits.

    With `refuse` in the query the transaction is rolled back, and no task is sent.
    """
    with transaction.atomic():
        stored = Order.objects.create(item=request.GET["item"])
        send_on_commit(PackOrder(order=stored.pk))
        if "refuse" in request.GET:
            transaction.set_rollback(True)
    return JsonResponse({"order": stored.pk})


def report(request: HttpRequest) -> JsonResponse:
    """Send a task that counts the orders."""
    return JsonResponse({"id": count_orders.enqueue(request.GET["item"]).id})


def result(request: HttpRequest, id: str) -> JsonResponse:
    """Return the status of a report, and its value once it has ended."""
    report = count_orders.get_result(id)
    value = report.return_value if report.is_finished else None
    return JsonResponse({"status": report.status, "value": value})

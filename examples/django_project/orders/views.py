"""The pages of the shop: JSON."""

from django.db import transaction
from django.http import HttpRequest, JsonResponse

from millpond.django import send_on_commit
from orders.kinds import PackOrder
from orders.models import Order
from orders.tasks import count_orders


def order(request: HttpRequest) -> JsonResponse:
    """Take an order in; a task packs it once it is in the database, and none if the order is refused."""
    with transaction.atomic():
        made = Order.objects.create(item=request.GET["item"])
        send_on_commit(PackOrder(order=made.pk))
        if "refuse" in request.GET:
            transaction.set_rollback(True)
    return JsonResponse({"order": made.pk})


def report(request: HttpRequest) -> JsonResponse:
    """Send a task that counts the orders."""
    return JsonResponse({"id": count_orders.enqueue(request.GET["item"]).id})


def result(request: HttpRequest, id: str) -> JsonResponse:
    """Return how far a report is."""
    found = count_orders.get_result(id)
    return JsonResponse({"status": found.status, "value": found.return_value if found.is_finished else None})

"""Tasks of Django's own framework."""

from orders.models import Order

try:
    from django.tasks import task
except ImportError:  # a Django before 6.0
    from django_tasks import task


@task
def count_orders(item: str) -> int:
    """Return the number of orders of an item."""
    if not item:
        raise ValueError("count what?")
    return Order.objects.filter(item=item).count()


@task(takes_context=True)
def who_am_i(context) -> str:
    """Return the id of the task."""
    return context.task_result.id


@task
async def later(word: str) -> str:
    """Return the word. The function is a coroutine."""
    return word

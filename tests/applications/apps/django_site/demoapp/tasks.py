"""The tasks, found by autodiscovery; in the shape of Celery's own example for Django."""

from celery import shared_task

from demoapp.models import Widget


@shared_task
def add(x: int, y: int) -> int:
    return x + y


@shared_task
def xsum(numbers: list[int]) -> int:
    return sum(numbers)


@shared_task
def rename_widget(widget_id: int, name: str) -> int:
    widget = Widget.objects.get(id=widget_id)
    widget.name = name
    widget.save()
    return int(widget.pk)


@shared_task
def count_widgets() -> int:
    return Widget.objects.count()


@shared_task(autoretry_for=(ValueError,), max_retries=1, retry_backoff=0.1, retry_jitter=False)
def error_task() -> None:
    raise ValueError("An error occurred in the task")


@shared_task
def tick(name: str) -> None:
    Widget.objects.create(name=name)

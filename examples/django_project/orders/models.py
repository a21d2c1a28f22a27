"""The tables of the shop."""

from django.db import models


class Order(models.Model):
    """An order; `packed` once a worker has packed it."""

    item = models.CharField(max_length=40)
    packed = models.BooleanField(default=False)

    def __str__(self) -> str:
        return self.item

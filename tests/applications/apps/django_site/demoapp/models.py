"""The table of the demo."""

from django.db import models


class Widget(models.Model):
    """A widget."""

    name = models.CharField(max_length=140)

    def __str__(self) -> str:
        return self.name

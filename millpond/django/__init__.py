"""Millpond in a Django project: an application for `INSTALLED_APPS`, and the names that a project imports.

from millpond.django import client, send_on_commit
"""

import importlib
from typing import Any

__all__ = ["MillpondBackend", "client", "send_on_commit"]


def __getattr__(name: str) -> Any:
    if name not in __all__:  # imported when used, since Django imports this module before its models
        raise AttributeError(f"module 'millpond.django' has no attribute {name!r}; it has: {__all__}")
    return getattr(importlib.import_module("millpond.producer.django"), name)

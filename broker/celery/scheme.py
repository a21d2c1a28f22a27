"""Give kombu the scheme `millpond`, so that a broker's URL is all that an application changes.

kombu has no entry points for transports, only for serializers, which it imports with its own: before Celery,
or a program that imports `kombu.Producer` or `Queue`, looks up the scheme of a URL. This module is such an
entry point (pyproject.toml). A program that imports `kombu.Connection` and nothing else imports this first.
"""

from kombu.transport import TRANSPORT_ALIASES
from kombu.utils import json

TRANSPORT_ALIASES["millpond"] = "millpond.broker.transport:Transport"

#: The serializer that the entry point must name: JSON, by a content type that no message has.
SERIALIZER = (json.dumps, json.loads, "application/x-millpond", "utf-8")

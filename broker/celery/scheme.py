"""Register the scheme `millpond` with kombu, so that an application changes nothing but its broker's URL.

kombu has entry points for serializers, but none for transports. So this module is the entry point of a
serializer (pyproject.toml). kombu imports it with its own serializers, which is before Celery, or a program
that imports `kombu.Producer` or `Queue`, looks up the scheme of a URL. A program that imports only
`kombu.Connection` must import this module itself.
"""

from kombu.transport import TRANSPORT_ALIASES
from kombu.utils import json

TRANSPORT_ALIASES["millpond"] = "millpond.broker.transport:Transport"

#: The serializer that the entry point must name: JSON, by a content type that no message has.
SERIALIZER = (json.dumps, json.loads, "application/x-millpond", "utf-8")

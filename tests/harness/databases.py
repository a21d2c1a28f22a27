"""A database of its own for each test; a conftest that is imported under two names would count them twice."""

import itertools

from millpond.worker.local.valkey import Server

#: More databases than a session has tests; a server allocates one when it is used.
DATABASES = 2_000
_numbers = itertools.count(1)


def fresh_database(server: Server) -> str:
    """Return the URL of an unused database of `server`."""
    return f"{server.url.rpartition('/')[0]}/{next(_numbers)}"

"""A database of its own for each test.

The counter is not in a conftest: pytest may import that under two names, and numbers would be given twice.
"""

import itertools

from millpond.worker.local.valkey import Server

#: More databases than a session of pytest has tests. A server allocates a database when it is first used.
DATABASES = 2_000
_numbers = itertools.count(1)


def fresh_database(server: Server) -> str:
    """Return the URL of a database of `server` that no other test uses."""
    return f"{server.url.rpartition('/')[0]}/{next(_numbers)}"

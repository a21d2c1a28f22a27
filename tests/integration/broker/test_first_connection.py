"""A first connection imports nothing: a child forked meanwhile by another thread would wait for ever."""

import sys

from tests.harness.run_to_end import run_to_end

CONVERSE = """
import sys
from millpond.broker.connection import connect
from millpond.broker.errors import BrokerAway
before = set(sys.modules)
store = connect(sys.argv[1])
with store.client.pipeline(transaction=False) as pipe:
    pipe.ping().time()
    pipe.execute()
try:
    connect("redis://localhost:1/0").client.ping()
except Exception:
    pass
print(*sorted(set(sys.modules) - before))
"""


def test_a_first_connection_imports_nothing(url: str) -> None:
    """The first call to the broker imports nothing, so no thread can meet a half-imported module."""
    named = url.replace("127.0.0.1", "localhost")
    done = run_to_end([sys.executable, "-c", CONVERSE, named], check=True)
    assert done.stdout.split() == []

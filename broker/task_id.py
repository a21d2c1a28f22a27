"""Random ids (UUID version 4, RFC 9562), many from one read of the system's source of randomness.

One read an id would be a fifth of the cost of a message, and hands the interpreter's lock to another thread.
"""

import os
from functools import lru_cache

_LOT = 128


def new_id() -> str:
    """Return an id that no other process or thread has."""
    lot = _lot(os.getpid())
    try:
        return lot.pop()  # one step for the interpreter, so no two threads get the same
    except IndexError:
        drawn = os.urandom(16 * _LOT).hex()
        some = [_uuid(drawn[at : at + 32]) for at in range(0, len(drawn), 32)]
        lot.extend(some[1:])
        return some[0]


@lru_cache(maxsize=1)
def _lot(_process: int) -> list[str]:
    """Return the ids in stock of this process: a child that was forked has none of its parent's."""
    return []


def _uuid(drawn: str) -> str:
    """Write 32 hexadecimal digits as a UUID; the digits for version and variant are fixed, in two bits."""
    variant = "89ab"[int(drawn[16], 16) & 3]
    return f"{drawn[:8]}-{drawn[8:12]}-4{drawn[13:16]}-{variant}{drawn[17:20]}-{drawn[20:]}"

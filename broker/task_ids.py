"""Ids of tasks and messages: random UUIDs, made many at a time."""

import os

#: Ids made in advance by this process. A call of `os.urandom` for each id would be a fifth of the cost of
#: composing a message, and each call passes the interpreter's lock to another thread.
_ids: list[str] = []
os.register_at_fork(after_in_child=_ids.clear)  # a child must not use the ids of its parent
_IDS_AT_ONCE = 128


def new_id() -> str:
    """Return a random id (UUID version 4, RFC 9562)."""
    try:
        return _ids.pop()  # atomic, so no two threads get the same id
    except IndexError:
        digits = os.urandom(16 * _IDS_AT_ONCE).hex()
        of_each = [digits[start : start + 32] for start in range(0, len(digits), 32)]
        # The four bits of the version are fixed, and two bits of the variant.
        ids = [f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{_VARIANT[d[16]]}{d[17:20]}-{d[20:]}" for d in of_each]
        _ids.extend(ids[1:])
        return ids[0]


#: A random hexadecimal digit -> the digit with the two bits of the variant set.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

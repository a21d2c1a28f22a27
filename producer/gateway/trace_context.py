"""Continue the trace of whoever asks: read the header `traceparent` of a request (W3C Trace Context)."""

import re
from collections.abc import Iterable

#: Version 00, or a later one, which begins alike; ids of zeros alone name nothing.
_HEADER = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?=-|$)")


def traceparent(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the trace that raw headers name; None where they name none, or it cannot be read."""
    for name, value in headers:
        if name == b"traceparent":
            found = _HEADER.match(value)
            return None if found is None else f"00-{found[0][3:].decode()}"
    return None

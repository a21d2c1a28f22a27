"""The headers of a request that the gateway reads itself: the media type of the body, and the trace."""

import re
from collections.abc import Iterable

from starlette.datastructures import Headers

#: The media type of a stream of tasks, one JSON object a line.
NDJSON = "application/x-ndjson"

#: W3C Trace Context: version 00, or a later one, which begins in the same way. An id of zeros is invalid.
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?=-|$)"
)


def media_type(headers: Headers) -> str:
    """Return the media type of the body in lower case, without parameters. Return "" if there is none."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def read_traceparent(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the value of the header `traceparent`, as version 00. None if it is missing or invalid."""
    for name, value in headers:
        if name == b"traceparent":
            match = _TRACEPARENT.match(value)
            return None if match is None else f"00-{match[0][3:].decode()}"
    return None

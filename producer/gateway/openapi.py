"""The parts of the OpenAPI document that FastAPI cannot derive: error responses and the token."""

from typing import Any

from millpond.producer.gateway.problems import ErrorBody

_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_MEANINGS = {
    400: "The body cannot be read",
    401: "The token is missing or unknown",
    403: "The token does not allow this kind, queue, option, batch or task",
    404: "The kind, batch or task does not exist",
    408: "The body stopped coming",
    409: "The batch is closed, or the id is in use",
    413: "The body is too long",
    415: "The route does not read this media type",
    422: "The request is not valid: each field at fault is named",
    429: "The queue is full",
    503: "The broker is away, or the gateway is overloaded",
}


def problem_responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of the error responses with these status codes."""
    return {
        code: {
            "model": ErrorBody,
            "description": _MEANINGS[code],
            **({"headers": _RETRY_AFTER} if code in (429, 503) else {}),
        }
        for code in codes
    }


def add_token_scheme(schema: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document that every route but those with `OPEN` needs a token, and return it."""
    bearer = {"type": "http", "scheme": "bearer", "description": "As `millpond gateway token` prints it."}
    schema.setdefault("components", {})["securitySchemes"] = {"token": bearer}
    schema["security"] = [{"token": []}]
    return schema


#: OpenAPI of a route that needs no token.
OPEN: dict[str, Any] = {"security": []}

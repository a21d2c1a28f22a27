"""Describe for OpenAPI what the routes do not say by themselves: problems, queries, who may come in."""

from typing import Any

from pydantic import BaseModel

from millpond.producer.gateway.problems import Problem

_LATER = {
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_MEANINGS = {
    400: "The body cannot be read",
    401: "No token, or one that is not known",
    403: "This token does not open that kind",
    404: "There is no such kind, batch or task",
    408: "The body stopped coming",
    409: "The batch takes nothing more, or the id is taken",
    413: "Longer than it may be",
    415: "Of another media type than this route reads",
    422: "It does not fit: each field is named",
    429: "The queue is full",
    503: "The broker is away, or the gateway has too much to do",
}

PROBLEMS: dict[int, dict[str, Any]] = {
    code: {"model": Problem, "description": meaning, **({"headers": _LATER} if code in (429, 503) else {})}
    for code, meaning in _MEANINGS.items()
}


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the descriptions of these answers."""
    return {code: PROBLEMS[code] for code in codes}


def query(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the parameters of a query that its route reads by itself, as the fields of a model."""
    schema = model.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "schema": field,
            **({"description": field["description"]} if "description" in field else {}),
        }
        for name, field in schema["properties"].items()
    ]


def with_tokens(schema: dict[str, Any]) -> dict[str, Any]:
    """Say in an OpenAPI document that every route needs a token, but for those that say otherwise."""
    bearer = {"type": "http", "scheme": "bearer", "description": "As `millpond gateway token` prints it."}
    schema.setdefault("components", {})["securitySchemes"] = {"token": bearer}
    schema["security"] = [{"token": []}]
    return schema


#: Of a route that needs no token.
OPEN: dict[str, Any] = {"security": []}

"""An example of each contract: valid, short and realistic."""

from typing import Any

from millpond.tasks.contract import Contract

_EXAMPLES: dict[str, dict[str, Any]] = {
    "email.send": {
        "sender": "shop@example.org",
        "to": ["ann@example.org"],
        "subject": "Your order",
        "text": "It is on its way.",
    },
    "email.campaign": {
        "sender": "shop@example.org",
        "subject": "Hello {{ name }}",
        "text": "Dear {{ name }}, spring is here.",
        "source": "/data/people.csv",
    },
    "files.checksum": {"source": "/data/report.pdf"},
    "files.thumbnail": {"source": "/data/photo.jpg", "target": "/data/thumbs/photo.jpg"},
    "files.convert": {"source": "/data/photo.jpg", "target": "/data/web/photo.webp"},
    "files.parquet": {"source": "/data/sales.csv", "target": "/data/sales.parquet"},
    "files.pdf_text": {"source": "/data/report.pdf", "target": "/data/report.txt"},
    "files.compress": {"source": "/data/app.log", "target": "/data/app.log.zst"},
    "files.unpack": {"source": "/data/photos.zip", "target": "/data/photos"},
    "squares.square": {"n": 7},
}

#: A value of each type of JSON Schema. A required field of another type gets its own name as its value.
_BY_TYPE = {"integer": 1, "number": 1.0, "boolean": True, "array": [], "object": {}}


def example_fields(contract: type[Contract]) -> dict[str, Any]:
    """Return the fields of an example of a contract.

    It is the first of the contract's own `json_schema_extra` examples, or else the one of this module. For
    other contracts it has the required fields, each with a value of its type, which need not be valid.
    """
    extra = contract.model_config.get("json_schema_extra")
    if isinstance(extra, dict) and (examples := extra.get("examples")):
        own: Any = examples
        return dict(own[0])
    if contract.kind in _EXAMPLES:
        return _EXAMPLES[contract.kind]
    schema = contract.model_json_schema()
    fields = schema.get("properties", {})
    return {name: _BY_TYPE.get(fields[name].get("type"), name) for name in schema.get("required", ())}

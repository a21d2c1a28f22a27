"""`millpond kinds`: list the kinds that can be sent, with their fields and an example."""

from typing import TYPE_CHECKING, Any

import typer

from millpond.producer.cli.options import Json

if TYPE_CHECKING:
    from millpond.tasks.contract import Contract

app = typer.Typer()


@app.command(epilog="Example: millpond kinds --json")
def kinds(as_json: Json = False) -> None:
    """List the kinds of task: their fields, and an example in Python that is ready to send."""
    import json

    from millpond.tasks.contract import kinds as known
    from millpond.tasks.contract import load_shipped
    from millpond.tasks.module_loading import import_modules
    from millpond.tasks.settings import settings

    load_shipped()
    import_modules(settings().kinds)
    for name, contract in sorted(known().items()):
        if as_json:
            print(json.dumps(kind_as_json(name, contract)))
        else:
            print(kind_as_text(name, contract))


def kind_as_json(name: str, contract: "type[Contract]") -> dict[str, Any]:
    """Return a kind as a JSON object, its fields as JSON Schema."""
    from millpond.producer.examples import example_fields

    return {
        "kind": name,
        "queue": contract.queue,
        "about": _first_line(contract),
        "schema": contract.model_json_schema(),
        "example": example_fields(contract),
    }


def kind_as_text(name: str, contract: "type[Contract]") -> str:
    """Return a kind as lines for people."""
    from millpond.producer.examples import example_fields

    about = _first_line(contract)
    lines = [f"{name}  (queue {contract.queue})", *([f"  {about}"] if about else ())]
    schema = contract.model_json_schema()
    required = schema.get("required", ())
    for field, described in schema.get("properties", {}).items():
        default = "required" if field in required else _default_words(described)
        lines.append(f"    {field}: {_type_words(described)}, {default}")
    options = ", ".join(f"{field}={value!r}" for field, value in example_fields(contract).items())
    lines.append(f"  Example: client.send({contract.__name__}({options}))")
    return "\n".join([*lines, ""])


def _first_line(contract: "type[Contract]") -> str:
    return (contract.__doc__ or "").strip().partition("\n")[0]


def _type_words(schema: dict[str, Any]) -> str:
    """Return the type of a JSON Schema in a few words."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type_words, schema["anyOf"])))
    if schema.get("type") == "array":
        return f"list of {_type_words(schema.get('items', {}))}"
    return str(schema.get("type") or schema.get("$ref", "anything").rpartition("/")[2])


def _default_words(schema: dict[str, Any]) -> str:
    import json

    return f"default {json.dumps(schema['default'])}" if "default" in schema else "optional"

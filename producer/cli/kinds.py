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

    from millpond.tasks.contract import contracts_by_kind, load_shipped_contracts
    from millpond.tasks.module_loading import import_modules
    from millpond.tasks.settings import settings

    load_shipped_contracts()
    import_modules(settings().kinds)
    for kind, contract in sorted(contracts_by_kind().items()):
        if as_json:
            print(json.dumps(kind_as_json(kind, contract)))
        else:
            print(kind_as_text(kind, contract))


def kind_as_json(kind: str, contract: "type[Contract]") -> dict[str, Any]:
    """Return a kind as a JSON object, its fields as JSON Schema."""
    from millpond.producer.examples import example_fields

    return {
        "kind": kind,
        "queue": contract.queue,
        "about": _description(contract),
        "schema": contract.model_json_schema(),
        "example": example_fields(contract),
    }


def kind_as_text(kind: str, contract: "type[Contract]") -> str:
    """Return a kind as lines for people: description, fields with type and default, an example in Python."""
    import json

    from millpond.producer.examples import example_fields

    description = _description(contract)
    lines = [f"{kind}  (queue {contract.queue})", *([f"  {description}"] if description else ())]
    schema = contract.model_json_schema()
    for name, field in schema.get("properties", {}).items():
        default = f"default {json.dumps(field['default'])}" if "default" in field else "optional"
        is_required = name in schema.get("required", ())
        lines.append(f"    {name}: {_type_text(field)}, {'required' if is_required else default}")
    arguments = ", ".join(f"{name}={value!r}" for name, value in example_fields(contract).items())
    lines.append(f"  Example: client.send({contract.__name__}({arguments}))")
    return "\n".join([*lines, ""])


def _description(contract: "type[Contract]") -> str:
    """Return the first line of a contract's docstring, or an empty text."""
    return (contract.__doc__ or "").strip().partition("\n")[0]


def _type_text(schema: dict[str, Any]) -> str:
    """Return the type of a field's JSON Schema as a short text, as in "list of string or null"."""
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(_type_text, schema["anyOf"])))
    if schema.get("type") == "array":
        return f"list of {_type_text(schema.get('items', {}))}"
    return str(schema.get("type") or schema.get("$ref", "anything").rpartition("/")[2])

"""Write the page of all settings, tasks/SETTINGS.md, from their models."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from millpond.tasks.configuration.catalog import ANY_NAME, Setting, list_settings, to_toml
from millpond.tasks.configuration.model_fields import describe_values
from millpond.tasks.pools import default_pools, default_queues

_HEAD = """\
# Settings

`millpond config --markdown` writes this page from the models, and a test compares both. `millpond config`
shows the values in force and their sources, and `millpond doctor` checks them.

A setting is written in the environment, by its variable, or in `millpond.toml` (or the file that
`MILLPOND_CONFIG` names), by its name. The environment comes before the file. In a variable, a list is
written `a,b` and a table `host=mail,port=587`, or both as JSON. Durations are `500ms`, `30s`, `2m30s`,
`1.5h`, `1d` or a number of seconds; rates are `50/s`, `3000/m` or `5/h`. In a variable, NAME is the name of
the pool, the queue or the schedule: `MILLPOND_POOLS__EMAIL__CONCURRENCY=20`.

Three variables are no settings: `MILLPOND_CONFIG` names the file, `MILLPOND_DEBUG=1` shows tracebacks in
addition to the line of an error, and `MILLPOND_SCRATCH` is the folder for short-lived files (default: the
system's).
"""

#: The tables in the order of the page, each with a title and an example of its header.
_TABLES = (
    ("", "At the top", ""),
    ("pools", "Pools", "`[pools.email]`"),
    ("queues", "Queues", "`[queues.email]`"),
    ("smtp", "Mail", "`[smtp]`"),
    ("files", "Files", "`[files]`"),
    ("gateway", "Gateway", "`[gateway]`, and `[[gateway.tokens]]` for each token"),
    ("schedule", "Schedules", "`[schedule.nightly]`"),
)


def settings_page(model: type[BaseModel]) -> str:
    """Return the page in Markdown. `model` is the class of all settings."""
    settings = list(list_settings(model))
    parts = [_HEAD]
    for table, title, header in _TABLES:
        rows = [_setting_row(setting) for setting in settings if _table_name(setting) == table]
        parts.append(f"## {title}\n\n" + (f"In {header}.\n\n" if header else ""))
        parts.append("| setting | may be | default | what it does |\n|---|---|---|---|\n" + "".join(rows))
        parts.append("".join(_shipped_rows(table)))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def _table_name(setting: Setting) -> str:
    """Return the top-level table of a setting. The text is empty for a setting outside of tables."""
    return setting.name.split(".")[0] if "." in setting.name else ""


def _setting_row(setting: Setting) -> str:
    """Return the row of a setting: its name and variable, valid values, default and description."""
    name = setting.name.removeprefix(f"{_table_name(setting)}.").removeprefix(f"{ANY_NAME}.")
    default = f"`{setting.default}`" if setting.default else "-"
    cells = (
        f"`{name}`<br>`{setting.variable}`",
        describe_values(setting.field),
        "must be given" if setting.field.is_required() else default,
        setting.field.description or "",
    )
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n"


def _shipped_rows(table_name: str) -> Iterator[str]:
    """Yield a line for each pool or queue that ships with Millpond, with its values that are no defaults."""
    tables: Mapping[str, Mapping[str, Any]] = {"pools": default_pools(), "queues": default_queues()}
    for name, entry in tables.get(table_name, {}).items():
        model_fields = type(entry).model_fields
        changes = [
            f"`{field} = {_shipped_value(name, field, value)}`"
            for field, value in entry
            if model_fields[field].is_required() or value != model_fields[field].default
        ]
        yield f"- `[{table_name}.{name}]` ships with {', '.join(changes) or 'these defaults'}\n"


def _shipped_value(name: str, field: str, value: object) -> str:
    """Return a value as TOML, or in words if it depends on the machine."""
    return "one a core" if (name, field) == ("files", "concurrency") else to_toml(value)

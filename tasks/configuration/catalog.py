"""List every setting: its type, its use, its default, and the value in force with its origin."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, get_args

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from millpond.tasks.configuration.model_fields import (
    describe_values,
    format_path,
    is_list,
    is_secret,
    model_of,
    strip_annotated,
    value_type_of,
)
from millpond.tasks.configuration.sources import Sources
from millpond.tasks.configuration.toml_file import Keys
from millpond.tasks.configuration.variable_names import variable_name
from millpond.tasks.durations import format_seconds

#: In the path of a setting, the name of any pool, queue or schedule.
ANY_NAME = "NAME"

HIDDEN = "(hidden)"


@dataclass(frozen=True)
class Setting:
    """One setting: its path in the model, and its field."""

    path: tuple[str, ...]
    field: FieldInfo
    #: The path of the list whose entries have this field; empty for a field outside of lists.
    list_path: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the setting in millpond.toml: `smtp.host`, `pools.NAME.concurrency`."""
        return format_path(self.path)

    @property
    def variable(self) -> str:
        """The environment variable that sets it. A field of a list has the variable of the whole list."""
        return variable_name(self.list_path or self.path)

    @property
    def default(self) -> str:
        """The default as TOML. The text is empty for a required setting, and for a default of None."""
        if self.field.is_required() or self.field.default is None:
            return ""
        return to_toml(self.field.get_default(call_default_factory=True))


@dataclass(frozen=True)
class SettingInForce:
    """A setting with its value in force and the source of the value. Secrets are hidden."""

    #: The header of its table in millpond.toml, without brackets; empty for a setting outside of tables.
    table: str
    key: str
    value: Any
    origin: str
    setting: Setting

    @property
    def name(self) -> str:
        """The name of the setting in millpond.toml: `smtp.host`, `queues."orders.high".bound`."""
        return f"{self.table}.{self.key}" if self.table else self.key

    def as_object(self) -> dict[str, Any]:
        """Return the object that `millpond config --json` writes."""
        return {
            "name": self.name,
            "value": self.value,
            "from": self.origin,
            "may_be": describe_values(self.setting.field),
            "variable": self.setting.variable,
            "description": self.setting.field.description,
        }


def list_settings(annotation: Any, path: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Yield every setting of a model and of its nested tables, at any depth.

    A list of tables is yielded itself, and then the fields of its entries.
    """
    model = model_of(annotation)
    for name, field in model.model_fields.items() if model else ():
        field_path, value_type = (*path, name), value_type_of(field.annotation)
        entry_type = get_args(strip_annotated(field.annotation))[0] if is_list(field.annotation) else None
        if model_of(field.annotation):
            yield from list_settings(field.annotation, field_path)
        elif model_of(value_type):
            yield from list_settings(value_type, (*field_path, ANY_NAME))
        else:
            yield Setting(field_path, field)
            for entry_setting in list_settings(entry_type, field_path):
                yield replace(entry_setting, list_path=field_path)


def settings_in_force(
    settings: BaseModel, sources: Sources, path: Keys = (), general_path: tuple[str, ...] = ()
) -> Iterator[SettingInForce]:
    """Yield every setting of a model and its nested tables, with its value in force and the value's source.

    `path` is that of the model: `pools.email`. `general_path` has `NAME` for the names: `pools.NAME`.
    """
    for name, field in type(settings).model_fields.items():
        value, setting = getattr(settings, name), Setting((*general_path, name), field)
        field_path = (*path, name)
        if isinstance(value, BaseModel):
            yield from settings_in_force(value, sources, field_path, setting.path)
        elif model_of(value_type_of(field.annotation)):
            for key, entry in value.items():
                entry_path = (*setting.path, ANY_NAME)
                yield from settings_in_force(entry, sources, (*field_path, key), entry_path)
        else:
            json_value = HIDDEN if is_secret(field) and value else to_json_value(value)
            table, origin = format_path(path) if path else "", sources.origin_of(field_path)
            yield SettingInForce(table, name, json_value, origin, setting)


def to_json_value(value: Any) -> Any:
    """Return a value as JSON can write it, with `HIDDEN` for secrets and durations as text."""
    match value:
        case SecretStr():
            return HIDDEN
        case BaseModel():
            return {name: to_json_value(getattr(value, name)) for name in type(value).model_fields}
        case Mapping():
            return {str(name): to_json_value(entry) for name, entry in value.items()}
        case tuple() | list():
            return [to_json_value(entry) for entry in value]
        case timedelta():
            return format_seconds(value.total_seconds())
        case float() if value.is_integer():
            return int(value)
        case str() | bool() | int() | float() | None:
            return value
        case _:
            return str(value)


def to_toml(value: Any) -> str:
    """Return a value as TOML. The text is empty for None, which TOML cannot express."""
    json_value = to_json_value(value)
    match json_value:
        case None:
            return ""
        case dict():
            entries = ", ".join(
                f"{json.dumps(name)} = {to_toml(entry)}" for name, entry in json_value.items()
            )
            return f"{{ {entries} }}" if entries else "{}"
        case list():
            return f"[{', '.join(map(to_toml, json_value))}]"
        case _:
            # TOML has no raw DEL in a text; JSON has.
            return json.dumps(json_value, ensure_ascii=False).replace("\x7f", "\\u007f")

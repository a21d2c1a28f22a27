"""List every setting: its type, its use, its default, and the value in force with its origin."""

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
    is_table,
    model_of,
    strip_annotated,
    value_type_of,
)
from millpond.tasks.configuration.sources import Sources
from millpond.tasks.configuration.toml_file import Keys
from millpond.tasks.configuration.variable_names import variable_name
from millpond.tasks.durations import format_seconds

#: Stands for the name of a pool, a queue or a schedule.
ANY_NAME = "NAME"

HIDDEN = "(hidden)"


@dataclass(frozen=True)
class Setting:
    """One setting: its path in the model, and its field."""

    path: tuple[str, ...]
    field: FieldInfo
    #: The path of the list whose entries have this field; empty if there is none.
    within: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return its name as millpond.toml has it: `smtp.host`, `pools.NAME.concurrency`."""
        return format_path(self.path)

    @property
    def variable(self) -> str:
        """Return the variable of the environment that sets it. Fields of a list are set with the list."""
        return variable_name(self.within or self.path)

    @property
    def default(self) -> str:
        """Return the default as TOML. The text is empty if there is none, or if it is unset."""
        if self.field.is_required() or self.field.default is None:
            return ""
        return to_toml(self.field.get_default(call_default_factory=True))


@dataclass(frozen=True)
class InForce:
    """A setting with its value in force and the source of the value. Secrets are hidden."""

    name: str
    value: Any
    origin: str
    setting: Setting

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
    """Yield every setting of a model and its tables, of a list of tables the list and its fields."""
    model = model_of(annotation)
    for name, field in model.model_fields.items() if model else ():
        below, values = (*path, name), value_type_of(field.annotation)
        entry = get_args(strip_annotated(field.annotation))[0] if is_list(field.annotation) else None
        if model_of(field.annotation):
            yield from list_settings(field.annotation, below)
        elif values is not None and model_of(values):
            yield from list_settings(values, (*below, ANY_NAME))
        else:
            yield Setting(below, field)
            for inside in list_settings(entry, below) if model_of(entry) else ():
                yield replace(inside, within=below)


def settings_in_force(settings: BaseModel, sources: Sources) -> Iterator[InForce]:
    """Yield every setting with its value in force and the source of the value."""
    yield from _settings_of(settings, (), (), sources)


def _settings_of(
    model: BaseModel, path: Keys, general: tuple[str, ...], sources: Sources
) -> Iterator[InForce]:
    """Yield the settings of a model and its nested tables, `path` being the model's own place."""
    for name, field in type(model).model_fields.items():
        value, here, setting = getattr(model, name), (*path, name), Setting((*general, name), field)
        if isinstance(value, BaseModel):
            yield from _settings_of(value, here, setting.path, sources)
        elif is_table(field.annotation) and model_of(value_type_of(field.annotation)):
            for key, each in value.items():
                yield from _settings_of(each, (*here, key), (*setting.path, ANY_NAME), sources)
        else:
            shown = HIDDEN if is_secret(field) and value else to_json_value(value)
            yield InForce(format_path(here), shown, sources.origin_of(here), setting)


def to_json_value(value: Any) -> Any:
    """Return a value as JSON can write it, with secrets masked."""
    match value:
        case SecretStr():
            return HIDDEN
        case BaseModel():
            return {name: to_json_value(getattr(value, name)) for name in type(value).model_fields}
        case Mapping():
            return {str(name): to_json_value(each) for name, each in value.items()}
        case tuple() | list():
            return [to_json_value(each) for each in value]
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
    import json

    json_value = to_json_value(value)
    match json_value:
        case None:
            return ""
        case dict():
            inside = ", ".join(f"{json.dumps(name)} = {to_toml(each)}" for name, each in json_value.items())
            return f"{{ {inside} }}" if inside else "{}"
        case list():
            return f"[{', '.join(map(to_toml, json_value))}]"
        case _:
            return json.dumps(json_value, ensure_ascii=False)

"""Read the settings from the environment variables and millpond.toml, and find the source of each value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from millpond.tasks.configuration.model_fields import LIFTED, path_in_file
from millpond.tasks.configuration.toml_file import Keys, TomlFile, config_file
from millpond.tasks.configuration.variables import read_variables
from millpond.tasks.errors import SettingsError


@dataclass(frozen=True)
class Sources:
    """The values from the variables and the file. A value of a variable replaces that of the file.

    `variables` has the variable of each path. `unused` are variables that may belong to another program.
    """

    values: dict[str, Any]
    variables: dict[tuple[str, ...], str]
    file: TomlFile | None
    unused: tuple[str, ...] = ()

    def variable_of(self, path: Keys) -> str | None:
        """Return the variable that sets the value at a path, or else a variable that sets a part of it.

        Return None if no variable does.
        """
        tables = [prefix for prefix in self.variables if path[: len(prefix)] == prefix]
        if tables:
            return self.variables[max(tables, key=len)]
        parts = (name for part, name in self.variables.items() if part[: len(path)] == path)
        return min(parts, default=None)

    def is_in_file(self, path: Keys) -> bool:
        """True if the file has a value at a path of the model."""
        value: Any = {} if self.file is None else nest_tables(self.file.values)
        for part in path:
            try:
                value = value[part]
            except (LookupError, TypeError):
                return False
        return True

    def origin_of(self, path: Keys) -> str:
        """Return the source of the value in force at a path: a variable, a line of the file, or "default"."""
        variable = self.variables.get(tuple(map(str, path)))
        return variable or (self._line_in_file(path) if self.is_in_file(path) else "default")

    def source_of(self, path: Keys) -> str | None:
        """Return the source of a value, of a part of it or of a table around it: a variable or a file's line.

        Return None if it has no source.
        """
        if variable := self.variable_of(path):
            return variable
        is_written = any(self.is_in_file(path[:end]) for end in range(1, len(path) + 1))
        return self._line_in_file(path) if is_written else None

    def _line_in_file(self, path: Keys) -> str:
        """Return the file's path with the line of a value, or of the table around it, if it is found."""
        assert self.file is not None
        line = self.file.line_of(path_in_file(path))
        return f"{self.file.path}{f' line {line}' if line else ''}"


def read_sources(model: type[BaseModel], *, shipped_names: Mapping[str, Any]) -> Sources:
    """Read the file and the variables. `model` is the class of all settings.

    `shipped_names` has the names of the shipped pools and queues as keys of nested tables. Raises
    `SettingsError`, in one line, for a malformed file, or with the faults of all variables.
    """
    path = config_file()
    file = TomlFile(path) if path.is_file() else None
    file_values = nest_tables(file.values) if file else {}
    read = read_variables(os.environ, model, merge_tables(shipped_names, file_values))
    if faults := [*read.faults, *_scratch_faults()]:
        raise SettingsError("; ".join(faults))
    return Sources(merge_tables(file_values, read.values), read.names, file, tuple(read.unused))


def nest_tables(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's values with `[pools]` and `[queues]` moved below `table`, as the model has them."""
    others = {name: value for name, value in values.items() if name not in LIFTED}
    table = {name: values[name] for name in LIFTED if name in values}
    return merge_tables(others, {"table": table}) if table else others


def merge_tables(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested table with changes. Two tables of a name are merged; any other value is replaced."""
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        are_tables = isinstance(old, dict) and isinstance(value, dict)
        merged[name] = merge_tables(old, value) if are_tables and old is not None else value
    return merged


def _scratch_faults() -> list[str]:
    """Return the fault of `MILLPOND_SCRATCH` if it names no folder; otherwise an empty list."""
    scratch = os.environ.get("MILLPOND_SCRATCH")
    if scratch and not Path(scratch).is_dir():
        return [f"MILLPOND_SCRATCH names {scratch}, which is not a folder: create it or unset the variable"]
    return []

"""Settings as they were written: the variables above the file, and the place of each value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from millpond.tasks.configuration import variables
from millpond.tasks.configuration.model_fields import LIFTED
from millpond.tasks.configuration.toml_file import Keys, TomlFile, config_file
from millpond.tasks.errors import SettingsError


@dataclass(frozen=True)
class Sources:
    """The settings that were written, with their places: variables and one file."""

    values: dict[str, Any]
    names: dict[tuple[str, ...], str]
    file: TomlFile | None
    unused: tuple[str, ...] = ()

    def variable_of(self, path: Keys) -> str | None:
        """Return the variable that a value, or a part of it, comes from.

        Return None if there is no variable.
        """
        inside = [each for each in self.names if path[: len(each)] == each]
        if inside:
            return self.names[max(inside, key=len)]
        below = sorted(self.names[each] for each in self.names if each[: len(path)] == path)
        return below[0] if below else None

    def written_in_file(self, path: Keys) -> bool:
        """True if the file has a value at a path."""
        value: Any = {} if self.file is None else nest_tables(self.file.values)
        for part in path:
            try:
                value = value[part]
            except (LookupError, TypeError):
                return False
        return True

    def origin_of(self, path: Keys) -> str:
        """Return the source of the value in force at a path: a variable, a file's line, or the default."""
        own = tuple(map(str, path))
        if own in self.names:
            return self.names[own]
        if not self.written_in_file(path):
            return "default"
        assert self.file is not None
        line = self.file.line_of(file_path(path))
        return f"{self.file.path}{f' line {line}' if line else ''}"

    def place_of(self, path: Keys) -> str | None:
        """Return the source of a value: a variable, or a file with its line.

        Return None if it has no source.
        """
        if name := self.variable_of(path):
            return name
        for end in range(len(path), 0, -1):
            if self.file is not None and self.written_in_file(path[:end]):
                line = self.file.line_of(file_path(path))
                return f"{self.file.path}{f' line {line}' if line else ''}"
        return None


def read_sources(model: type[BaseModel], shipped: Mapping[str, Any]) -> Sources:
    """Read the file and the variables. `shipped` has the names that every table by name starts with.

    Raises `SettingsError`, one line with everything that is wrong.
    """
    path = config_file()
    file = TomlFile(path) if path.is_file() else None
    written = nest_tables(file.values) if file else {}
    from_variables = variables.read_variables(os.environ, model, merge_tables(shipped, written))
    faults = [*from_variables.faults, *_scratch_faults()]
    if faults:
        raise SettingsError("; ".join(faults))
    return Sources(
        merge_tables(written, from_variables.values), from_variables.names, file, tuple(from_variables.unused)
    )


def nest_tables(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's values with `[pools]` and `[queues]` moved below `table`, as the model has them."""
    rest = {name: value for name, value in values.items() if name not in LIFTED}
    table = {name: values[name] for name in LIFTED if name in values}
    return merge_tables(rest, {"table": table}) if table else rest


def file_path(path: Keys) -> Keys:
    """Return a path of the model as the file spells it, without the `table` that the model adds."""
    return path[1:] if path[0] == "table" and path[1:] else path


def merge_tables(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Merge one nested table over another. A value that is no table is replaced."""
    both = dict(below)
    for name, value in above.items():
        under = both.get(name)
        is_table = isinstance(under, dict) and isinstance(value, dict)
        both[name] = merge_tables(under, value) if is_table and under is not None else value
    return both


def _scratch_faults() -> list[str]:
    """Return a line if the scratch folder is not there."""
    scratch = os.environ.get("MILLPOND_SCRATCH")
    if scratch and not Path(scratch).is_dir():
        return [f"MILLPOND_SCRATCH names {scratch}, which is not a folder: create it or unset the variable"]
    return []

"""Read millpond.toml, and find the line on which a value was written."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from millpond.tasks.errors import SettingsError

Keys = tuple[int | str, ...]

_KEY = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEYS})\s*\]\]?\s*(?:#.*)?")
_ENTRY = re.compile(rf"\s*({_KEYS})\s*=\s*(.*)")
_BARE_TEXT = re.compile(r"""[^"'\[\]{}#]+""")
_WHERE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


def config_file() -> Path:
    """Return the path of the TOML file in force: `MILLPOND_CONFIG`, or else `millpond.toml` in this folder.

    `millpond.toml` need not exist. Raises `SettingsError` if `MILLPOND_CONFIG` names no file.
    """
    named = os.environ.get("MILLPOND_CONFIG")
    if named and not Path(named).is_file():
        raise SettingsError(
            f"MILLPOND_CONFIG names {named}, which is not a file: create it or unset the variable"
        )
    return Path(named or "millpond.toml")


class TomlFile:
    """One file: its values, and the line of each."""

    def __init__(self, path: Path) -> None:
        """Read a file. Raises `SettingsError`, with the line, if it is no TOML."""
        self.path = path
        try:
            self.text = path.read_text("utf-8-sig")
            self.values: dict[str, Any] = tomllib.loads(self.text)
        except OSError as error:
            raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            raise SettingsError(f"{path} line {line} is not UTF-8: save the file as UTF-8") from None
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(self._syntax_error(str(error))) from None

    def line_of(self, path: Keys) -> int | None:
        """Return the line of a value, or else of the table around it. Return None if neither is found."""
        best: tuple[int, int] | None = None
        for number, keys in self._key_lines():
            depth = _common_length(keys, path)
            if depth in (len(keys), len(path)) and depth and (best is None or depth > best[0]):
                best = depth, number
        return None if best is None else best[1]

    def _key_lines(self) -> list[tuple[int, Keys]]:
        """Return every key and header with its line. An entry of `[[lists]]` has its number in the path."""
        keys: list[tuple[int, Keys]] = []
        table: Keys = ()
        counted: dict[Keys, int] = {}
        closing = None
        for number, line in enumerate(self.text.splitlines(), 1):
            if closing is not None:
                closing = None if closing in line else closing
            elif header := _HEADER.fullmatch(line):
                table = _split_keys(header[2])
                if header[1] == "[[":
                    counted[table] = counted.get(table, -1) + 1
                    table = (*table, counted[table])
                keys.append((number, table))
            elif entry := _ENTRY.fullmatch(line):
                keys.append((number, (*table, *_split_keys(entry[1]))))
                closing = next((mark for mark in ('"""', "'''") if entry[2].count(mark) == 1), None)
        return keys

    def _syntax_error(self, said: str) -> str:
        """Return the line about a file that does not parse: the place, the text there, the right form."""
        lines = self.text.splitlines() or [""]
        at = _WHERE.search(said)
        number = int(at[1]) if at and at[1] else len(lines)
        written = lines[min(number, len(lines)) - 1].strip()
        entry = _ENTRY.fullmatch(written)
        hint = ""
        if entry and _BARE_TEXT.fullmatch(entry[2].strip()) and not said.startswith("Cannot"):
            value = entry[2].strip()
            better = value.lower() if value.lower() in ("true", "false") else f'"{value}"'
            hint = f": write {entry[1]} = {'a text in quotes' if _may_be_secret(entry[1]) else better}"
        elif written.startswith("[") and "]" not in written:
            hint = f": write {written}]"
        elif ":" in written and not entry:
            hint = ": write name = value, with = between them"
        reason = _WHERE.sub("", said).rstrip(".")
        shown = "it" if entry and _may_be_secret(entry[1]) else repr(written[:60])
        return (
            f"{self.path} line {number}: {shown} is not TOML{hint or f' ({reason[:1].lower()}{reason[1:]})'}"
        )


def _may_be_secret(key: str) -> bool:
    """True if the value of a key may be a secret, so that it is not shown."""
    return any(word in key.lower() for word in ("password", "auth", "hash", "url", "secret", "token"))


def _split_keys(keys: str) -> Keys:
    return tuple(key.strip("\"'") for key in re.findall(_KEY, keys))


def _common_length(one: Keys, other: Keys) -> int:
    """Return the number of keys that two paths have in common at their beginnings."""
    return next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )

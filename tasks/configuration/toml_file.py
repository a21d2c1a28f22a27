"""Read millpond.toml, and find the line on which a value was written."""

import os
import re
import tomllib
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from millpond.tasks.errors import SettingsError

#: The path of a value: names of tables and keys, and the numbers of entries of lists.
Keys = tuple[int | str, ...]

_KEY = r"""(?:[\w-]+|"[^"]*"|'[^']*')"""
_KEYS = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_KEYS})\s*\]\]?\s*(?:#.*)?")
_ENTRY = re.compile(rf"\s*({_KEYS})\s*=\s*(.*)")
_BARE_TEXT = re.compile(r"""[^"'\[\]{}#]+""")
_PARSER_POSITION = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")


def config_file() -> Path:
    """Return the path of the settings file: `MILLPOND_CONFIG`, or else `millpond.toml` in this folder.

    `millpond.toml` need not exist. Raises `SettingsError` if `MILLPOND_CONFIG` names no file.
    """
    named = os.environ.get("MILLPOND_CONFIG")
    if named and not Path(named).is_file():
        raise SettingsError(
            f"MILLPOND_CONFIG names {named}, which is not a file: create it or unset the variable"
        )
    return Path(named or "millpond.toml")


class TomlFile:
    """A TOML file: its text, its values, and the line of each."""

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
        best_depth, best_line = 0, None
        for line, keys in self._key_lines():
            depth = _common_length(keys, path)
            if depth in (len(keys), len(path)) and depth > best_depth:
                best_depth, best_line = depth, line
        return best_line

    def _key_lines(self) -> list[tuple[int, Keys]]:
        """Return the path of every key and table header with its line.

        The path of an entry of a `[[list]]` contains its number, from 0. Lines inside of a text are
        skipped.
        """
        paths: list[tuple[int, Keys]] = []
        table: Keys = ()
        last_entry: dict[Keys, int] = {}
        closing_quotes = None
        for number, line in enumerate(self.text.splitlines(), 1):
            if closing_quotes is not None:
                closing_quotes = None if closing_quotes in line else closing_quotes
            elif header := _HEADER.fullmatch(line):
                table = _split_keys(header[2])
                if header[1] == "[[":
                    last_entry[table] = last_entry.get(table, -1) + 1
                    table = (*table, last_entry[table])
                paths.append((number, table))
            elif entry := _ENTRY.fullmatch(line):
                paths.append((number, (*table, *_split_keys(entry[1]))))
                closing_quotes = next((mark for mark in ('"""', "'''") if entry[2].count(mark) == 1), None)
        return paths

    def _syntax_error(self, parser_error: str) -> str:
        """Return the text about a file that does not parse: the line, its content, and the right form.

        The content of a line that may hold a secret is not shown.
        """
        lines = self.text.splitlines() or [""]
        position = _PARSER_POSITION.search(parser_error)
        number = int(position[1]) if position and position[1] else len(lines)
        line = lines[min(number, len(lines)) - 1].strip()
        entry = _ENTRY.fullmatch(line)
        is_secret = _may_be_secret(lines[:number])
        hint = ""
        if entry and _BARE_TEXT.fullmatch(entry[2].strip()) and not parser_error.startswith("Cannot"):
            value = entry[2].strip()
            corrected = value.lower() if value.lower() in ("true", "false") else f'"{value}"'
            hint = f": write {entry[1]} = {'a text in quotes' if is_secret else corrected}"
        elif line.startswith("[") and "]" not in line and not is_secret:
            hint = f": write {line}]"
        elif ":" in line and not entry:
            hint = ": write name = value, with = between them"
        reason = _PARSER_POSITION.sub("", parser_error).rstrip(".")
        content = "it" if is_secret else repr(line[:60])
        hint = hint or f" ({reason[:1].lower()}{reason[1:]})"
        return f"{self.path} line {number}: {content} is not TOML{hint}"


def _may_be_secret(lines: Sequence[str]) -> bool:
    """True if the last of these lines may hold a secret, by its words and by the key that it belongs to."""
    key = ""
    for line in lines:
        if entry := _ENTRY.fullmatch(line):
            key = entry[1]
        elif line.lstrip().startswith("["):  # a table begins
            key = ""
    words = ("password", "auth", "hash", "url", "secret", "token")
    return any(word in text.lower() for text in (key, lines[-1]) for word in words)


def _split_keys(keys: str) -> Keys:
    """Return the parts of a dotted key, without their quotes."""
    return tuple(key.strip("\"'") for key in re.findall(_KEY, keys))


def _common_length(first: Keys, second: Keys) -> int:
    """Return the number of keys that two paths have in common at their beginnings."""
    return sum(1 for _ in takewhile(lambda keys: keys[0] == keys[1], zip(first, second, strict=False)))

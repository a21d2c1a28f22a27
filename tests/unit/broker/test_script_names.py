"""Every function that a script calls is there: one that is not fails only when it is reached."""

import re
from importlib.resources import files

import pytest

from millpond.broker import scripts

LUA = {
    *("assert", "error", "function", "if", "ipairs", "next", "pairs", "pcall", "select", "tonumber"),
    *("tostring", "type", "unpack", "and", "or", "not", "return", "in", "while", "until", "elseif"),
}
NAMES = sorted(
    file.name.removesuffix(".lua")
    for file in files(scripts).iterdir()
    if file.name.endswith(".lua") and not file.name.startswith("_")
)


@pytest.mark.parametrize("name", NAMES)
def test_every_function_called_is_there(name: str) -> None:
    """A helper that was renamed is renamed in every script, and stands before its use."""
    source = re.sub(r"--[^\n]*|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", "", scripts.script(name).source)
    defined = {
        found: place.start()
        for place in re.finditer(r"local (?:function )?([\w, ]+?)(?=[\s=(\n])", source)
        for found in reversed(place[1].split(", "))
    }
    arguments = set(re.findall(r"\w+", " ".join(re.findall(r"function\s*\w*\(([^)]*)\)", source))))
    for call in re.finditer(r"(?<![\w.:])([A-Za-z_]\w*)\s*\(", source):
        if call[1] not in LUA | arguments:
            assert call[1] in defined, f"{name}.lua calls {call[1]}, and no function is called so"
            assert defined[call[1]] < call.start(), f"{name}.lua calls {call[1]} before it is there"


@pytest.mark.parametrize("name", NAMES)
def test_every_constant_used_is_there(name: str) -> None:
    """A constant that is missing would be nil."""
    source = re.sub(r"--[^\n]*|'[^']*'|\"[^\"]*\"", "", scripts.script(name).source)
    defined = {
        constant for names in re.findall(r"local ([\w, ]+)", source) for constant in re.findall(r"\w+", names)
    }
    used = set(re.findall(r"\b[A-Z][A-Z_]+\b", source))
    assert used <= defined | {"KEYS", "ARGV"}


def test_a_script_has_only_the_shared_definitions_that_it_uses() -> None:
    """The server carries out each definition at every call."""
    source = scripts.script("take_in").source
    assert "function wake(" in source
    assert "function admit_waiters(" not in source
    assert len(source) < len(scripts.script("settle_and_fetch").source) / 10

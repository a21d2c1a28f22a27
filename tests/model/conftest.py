"""A clock for the scripts that a test can move."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from moved_clock import CLOCK

from millpond.broker import scripts
from millpond.broker.scripts import script


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the scripts read the time from a key of the test; production's scripts are untouched."""
    now = re.compile(r"local function now_ms\(\).*?\nend\n", re.DOTALL)
    ours = f"local function now_ms() return tonumber(redis.call('GET', '{CLOCK}')) end\n"
    for source in Path(scripts.__file__).parent.glob("*.lua"):
        patched, found = now.subn(ours, source.read_text())
        assert found == (source.name == "_queue.lua")
        (tmp_path / source.name).write_text(patched)
    monkeypatch.setattr(scripts, "files", lambda _package: tmp_path)
    _forget_scripts()
    yield
    _forget_scripts()


def _forget_scripts() -> None:
    script.cache_clear()
    scripts._shared_definitions.cache_clear()

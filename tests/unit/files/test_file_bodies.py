"""Every file contract has a body, and a process loads only the libraries of its tasks."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import millpond.tasks.files.task  # noqa: F401 - declares the bodies
from millpond.tasks.context import Context
from millpond.tasks.contract import contracts_by_kind
from millpond.tasks.errors import OutsideRoots
from millpond.tasks.files.contract import Checksum, Compress
from millpond.tasks.handlers import handlers_by_kind
from millpond.tasks.settings import settings

HEAVY = {"pyvips", "pyarrow", "pypdfium2", "fsspec", "PIL"}  # zstandard is loaded by kombu


@pytest.fixture
def configured(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the root that the settings name for the length of a test."""
    monkeypatch.setenv("MILLPOND_FILES__ROOTS", json.dumps([str(root)]))
    settings.cache_clear()
    yield root
    settings.cache_clear()


def test_every_file_contract_has_a_body() -> None:
    """Every contract that may be sent can be run."""
    sent = {kind for kind in contracts_by_kind() if kind.startswith("files.")}
    assert sent == {kind for kind in handlers_by_kind() if kind.startswith("files.")}


def test_a_body_works_below_the_configured_roots(configured: Path, context: Context) -> None:
    """The roots are those of the environment."""
    (configured / "a").write_bytes(b"abc")
    run = handlers_by_kind()
    assert run["files.checksum"].function(Checksum(source="a", algorithm="md5"), context).digest == (
        "900150983cd24fb0d6963f7d28e17f72"
    )
    assert run["files.compress"].function(Compress(source="a", target="b"), context).target == "b"
    with pytest.raises(OutsideRoots):
        run["files.checksum"].function(Checksum(source="/etc/passwd"), context)


@pytest.mark.parametrize(
    ("module", "allowed"),
    [("millpond.tasks.files.contract", set()), ("millpond.tasks.files.task", {"fsspec"})],
)
def test_importing_loads_no_library_of_an_operation(module: str, allowed: set[str]) -> None:
    """A producer loads none, and a worker loads each when it first runs its operation, after the fork."""
    program = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert HEAVY & {name.split(".")[0] for name in json.loads(done.stdout)} <= allowed

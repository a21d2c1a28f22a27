"""The examples of the README work as they stand there."""

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from millpond.broker.connection import Store, connect
from millpond.broker.inspect.depth import read_depth
from millpond.tasks.pools import PoolsTable
from millpond.tasks.settings import Settings
from millpond.worker.local.embedded import Embedded, embedded
from tests.conftest import Eventually
from tests.harness.run_to_end import run_to_end

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def snippet(containing: str, language: str = "python") -> str:
    """Return the one code block of the README that contains a text."""
    (found,) = [
        block for block in re.findall(rf"```{language}\n(.*?)```", README, re.S) if containing in block
    ]
    return str(found)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Embedded, Path]]:
    """Run the pool `default` with the kind of the README, in a folder that has its module."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "greetings.py").write_text(snippet("class Greet"))
    (folder / "jobs.py").write_text(snippet("def charge"))
    (folder / "send.py").write_text(snippet("client.send(mail).id"))
    (folder / "millpond.toml").write_text(snippet("[queues.celery]", "toml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.chdir(folder)
        with embedded(Settings(kinds=("greetings", "jobs"), drain_seconds=5), pools=["default"]) as pond:
            yield pond, folder


def run(code: str, running: tuple[Embedded, Path]) -> str:
    """Run a snippet as a newcomer would, and return its output."""
    pond, folder = running
    done = run_to_end(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, "MILLPOND_BROKER_URL": pond.url}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_kind_of_ones_own_runs(running: tuple[Embedded, Path]) -> None:
    """The few lines of a kind of one's own are enough to run it and to get its result."""
    assert run(snippet("from greetings import Greet"), running) == "succeeded hello Ada\n"


def test_an_application_sends_once(running: tuple[Embedded, Path]) -> None:
    """A second send with `once=` is a duplicate, and has the id of the first."""
    _sent, first, second = run(snippet("order-42"), running).splitlines()
    assert first.endswith(" duplicate of None")
    assert second.endswith(f" duplicate of {first.split()[0]}")


def test_a_stock_celery_client_sends_the_same_task(
    running: tuple[Embedded, Path], eventually: Eventually
) -> None:
    """A task of a plain Celery client is run by the pool."""
    store = connect(running[0].url)
    before = _settled(store)
    run(snippet("send_task"), running)
    eventually(lambda: _settled(store) == before + 1)
    store.close()


def test_the_toml_of_the_readme_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of millpond.toml changes the settings in it and no others."""
    text = snippet("[pools.email]", "toml")
    (tmp_path / "millpond.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    table = Settings().table
    assert table.pools["email"].concurrency == tomllib.loads(text)["pools"]["email"]["concurrency"]
    assert (table.queues["email"].bound, table.queues["email"].rate) == (5000, 50)
    assert table.pools["files"] == PoolsTable().pools["files"]


def test_celery_tasks_that_one_has_run_as_they_are(
    running: tuple[Embedded, Path], eventually: Eventually
) -> None:
    """A plain Celery module is named in the file, and the pool runs the tasks of its `delay`."""
    store = connect(running[0].url)
    run("from jobs import charge; charge.delay(42)", running)
    eventually(lambda: _settled(store, "celery") == 1)
    store.close()


def _settled(store: Store, queue: str = "default") -> int:
    return read_depth(store, queue).counters.get("settled", 0)

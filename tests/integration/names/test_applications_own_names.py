"""An application keeps its own module names: `tasks.py`, `worker.py`, `broker.py` and the rest stay its own.

Run from a wheel in a fresh environment, with PyPI's package `broker` beside it, and from an editable install;
with the application's folder first on the path, and last.
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.harness.run_to_end import run_to_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOP = Path(__file__).parents[3]
EXTRAS = "embedded,flower,gateway"

TASKS = """
from celery import Celery

app = Celery("shop", broker="{url}")
MINE = "tasks"


@app.task
def note(text):
    with open("{notes}", "a") as file:
        file.write(text + "\\n")
"""

WORKER = """
from millpond import Context, Contract, body

MINE = "worker"


class Greet(Contract, kind="greet"):
    name: str


@body(Greet)
def greet(job: Greet, context: Context) -> str:
    return f"hello {job.name}"
"""

SEND = """
import broker, deploy, monitor, producer, tasks, worker

from millpond import Client

modules = (deploy, monitor, producer, tasks, worker)
assert [each.MINE for each in modules] == ["deploy", "monitor", "producer", "tasks", "worker"]
assert not hasattr(broker, "transport"), "Millpond's own folder was imported"
tasks.note.delay("a plain Celery task ran")
with Client() as client, client.batch() as batch:
    batch.send(worker.Greet(name="Ada"))
print(*[result.error or result.value for result in batch.results()])
"""

TOML = """
kinds = ["tasks", "worker"]

[pools.default]
queues = ["default", "celery"]

[queues.celery]
bound = 100

[gateway]
contracts = ["worker"]
"""


@pytest.fixture(scope="module")
def wheel_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and install it into an environment of its own, PyPI's `broker` beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    _run([uv, "build", "--quiet", "--wheel", "--out-dir", str(folder), str(TOP)], folder)
    (wheel,) = folder.glob("*.whl")
    _run([uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")], folder)
    python = folder / "venv" / "bin" / "python"
    _run([uv, "pip", "install", "--quiet", "--python", str(python), f"{wheel}[{EXTRAS}]", "broker"], folder)
    return python.parent


@pytest.fixture(params=["wheel", "editable"])
def bin_folder(request: pytest.FixtureRequest) -> Path:
    """Return the folder of `python` and `millpond`: of the wheel's environment, or of this one."""
    if request.param == "wheel":
        return request.getfixturevalue("wheel_bin")
    return Path(sys.executable).parent


@pytest.mark.parametrize("first", [True, False], ids=["folder first", "folder last"])
def test_an_application_with_all_of_our_names_works(
    bin_folder: Path, first: bool, tmp_path: Path, url: str, eventually: Eventually
) -> None:
    """Sending, Celery tasks, kinds, `worker`, `gateway` and `flower` run beside modules of these names."""
    notes = _application(tmp_path, url)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MILLPOND_", "PYTHONPATH"))}
    env |= {"MILLPOND_BROKER_URL": url, "PYTHONUNBUFFERED": "1"}
    if first:
        env["PYTHONPATH"] = str(tmp_path)
    millpond, python = str(bin_folder / "millpond"), str(bin_folder / "python")
    last = f"import sys; sys.path.append({str(tmp_path)!r})\n"
    with _running([millpond, "worker", "default"], tmp_path, env) as worker:
        flags = [] if first else ["-P"]
        sent = _run([python, *flags, "-c", ("" if first else last) + SEND], tmp_path, env)
        assert sent == "hello Ada\n", worker.read_text()
        eventually(lambda: notes.exists() and notes.read_text() == "a plain Celery task ran\n")
    with _running([millpond, "gateway", "--port", "0"], tmp_path, env) as log:
        at = _address(log, eventually)
        request = urllib.request.Request(
            f"{at}/send/greet",
            data=json.dumps({"name": "Bob"}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert json.load(answer)["id"]
    with (
        _running([millpond, "flower", "--port", "0"], tmp_path, env) as log,
        urllib.request.urlopen(_address(log, eventually) + "/healthcheck", timeout=30) as answer,
    ):
        assert answer.read() == b"OK"


def test_the_wheel_holds_one_name(wheel_bin: Path) -> None:
    """`millpond` is all that the wheel puts at the top of an environment."""
    python = str(wheel_bin / "python")
    code = (
        "from importlib.metadata import files; tops = {path.parts[0] for path in files('millpond')}; "
        "print(sorted(top for top in tops if not top.startswith(('millpond-', '..'))))"
    )
    assert _run([python, "-c", code], wheel_bin) == "['millpond']\n"


def test_an_editable_install_takes_no_other_name(tmp_path: Path) -> None:
    """In an editable install `import tasks` finds nothing of ours."""
    code = (
        "from importlib.util import find_spec as f; "
        "print([n for n in ('broker', 'tasks', 'producer', 'worker', 'monitor', 'tests') if f(n)])"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    assert _run([sys.executable, "-P", "-c", code], tmp_path, env) == "[]\n"


def _application(folder: Path, url: str) -> Path:
    """Write the application; return the file that its Celery task writes to."""
    notes = folder / "notes.txt"
    (folder / "tasks.py").write_text(TASKS.format(url=url, notes=notes))
    (folder / "worker.py").write_text(WORKER)
    (folder / "producer").mkdir()
    for name in ("broker.py", "monitor.py", "deploy.py", "producer/__init__.py"):
        own = name.removesuffix(".py").removesuffix("/__init__")
        (folder / name).write_text(f"MINE = {own!r}\n")
    (folder / "millpond.toml").write_text(TOML)
    return notes


def _run(command: list[str], folder: Path, env: Mapping[str, str] | None = None) -> str:
    done = run_to_end(command, cwd=folder, env=env and dict(env), timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def _running(command: list[str], folder: Path, env: Mapping[str, str]) -> Iterator[Path]:
    """Run a command until the block ends; yield the file with its output."""
    log = folder / f"{command[1]}.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=folder, env=dict(env), stdout=out, stderr=subprocess.STDOUT)
        try:
            yield log
        finally:
            process.terminate()
            code = process.wait(60)
    assert code == 0, log.read_text()


def _address(log: Path, eventually: Eventually) -> str:
    def said() -> str | None:
        words = log.read_text().replace(",", " ").split()
        return next((word.rstrip("/.") for word in words if word.startswith("http://")), None)

    return str(eventually(said))

"""The examples for Django, FastAPI and Flask: the framework's own server or client, a worker, a broker."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.conftest import Eventually
from tests.harness.own_server import free_port
from tests.harness.run_to_end import run_to_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).parents[2] / "examples"


def environment(**more: str) -> dict[str, str]:
    """Return this environment without what is set for Millpond or Django."""
    own = ("MILLPOND_", "DJANGO_", "FLASK_")
    return {**{k: v for k, v in os.environ.items() if not k.startswith(own)}, **more}


@contextmanager
def program(
    command: list[str], folder: Path, env: dict[str, str], log: Path, ready: str, eventually: Eventually
) -> Iterator[None]:
    """Run a program of an example until the block is left; it must then end with 0."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        eventually(lambda: ready in log.read_text() or process.poll() is not None, 30)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        code = process.wait(60)
    assert code in (0, -15, 143), log.read_text()


# Django


@pytest.fixture
def django(url: str, tmp_path: Path, eventually: Eventually) -> Iterator[Callable[[str], Any]]:
    """Run the project's worker; yield a function that runs a program in the project and reads its JSON."""
    pytest.importorskip("django")
    folder = EXAMPLES / "django_project"
    env = environment(SHOP_BROKER=url, SHOP_DATABASE=str(tmp_path / "shop.sqlite3"))

    def run(program: str) -> Any:
        done = run_to_end(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", program]
            if _django_names_imports()
            else [sys.executable, "manage.py", "shell", "-c", program],
            cwd=folder,
            env=env,
        )
        assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
        return json.loads(done.stdout)

    migrate = [sys.executable, "manage.py", "migrate", "--run-syncdb", "-v", "0"]
    subprocess.run(migrate, cwd=folder, env=env, check=True, timeout=120)
    command = ["manage.py", "millpond", "worker", "default"]
    with program(command, folder, env, tmp_path / "log", "takes messages", eventually):
        yield run


def _django_names_imports() -> bool:
    import django

    return django.VERSION >= (5, 2)


def test_django_sends_when_the_transaction_commits(django: Callable[[str], Any]) -> None:
    """A task finds the row that its transaction made; a transaction that is rolled back sends none."""
    found = django("""
import json, time
from django.test import Client
from millpond.django import client
from orders.models import Order
web = Client()
kept = web.get("/orders/?item=lamp").json()["order"]
refused = web.get("/orders/?item=sofa&refuse").json()["order"]
deadline = time.monotonic() + 60
while not Order.objects.get(pk=kept).packed and time.monotonic() < deadline:
    time.sleep(0.05)
from millpond.broker.inspect.depth import read_depth
seen = read_depth(client().store, "default")
print(json.dumps([Order.objects.get(pk=kept).packed, Order.objects.filter(item="sofa").count(), seen.dead]))
""")
    assert found == [True, 0, 0]


def test_django_tasks_run_on_millpond(django: Callable[[str], Any]) -> None:
    """Django's tasks framework: `enqueue`, `using`, contexts, coroutines, results and errors."""
    found = django("""
import asyncio, json, time
from datetime import timedelta
from django.utils import timezone
from orders import tasks
from orders.models import Order
from millpond.tasks.django.framework import TaskResultDoesNotExist

def ended(result):
    deadline = time.monotonic() + 60
    while not result.is_finished and time.monotonic() < deadline:
        time.sleep(0.05)
        result.refresh()
    return result

Order.objects.create(item="lamp")
fine = ended(tasks.count_orders.enqueue("lamp"))
wrong = ended(tasks.count_orders.enqueue(item=""))
mine = ended(tasks.who_am_i.enqueue())
waited = tasks.count_orders.using(run_after=timezone.now() + timedelta(seconds=1), priority=7).enqueue("lamp")
first = tasks.count_orders.get_result(waited.id).status
ended(waited)
coroutine = ended(asyncio.run(tasks.later.aenqueue("word")))
[error] = wrong.errors
try:
    tasks.count_orders.get_result("never was")
    missing = "found"
except TaskResultDoesNotExist:
    missing = "does not exist"
print(json.dumps({
    "fine": [fine.status, fine.return_value, fine.attempts],
    "times": fine.finished_at >= fine.started_at >= fine.enqueued_at,
    "wrong": [wrong.status, error.exception_class.__name__, "count what?" in error.traceback],
    "mine": mine.return_value == mine.id,
    "waited": [first, waited.return_value, waited.started_at - waited.enqueued_at > timedelta(seconds=0.9)],
    "coroutine": coroutine.return_value,
    "missing": missing,
    "args": [fine.args, wrong.kwargs],
}))
""")
    assert found == {
        "fine": ["SUCCESSFUL", 1, 1],
        "times": True,
        "wrong": ["FAILED", "ValueError", True],
        "mine": True,
        "waited": ["READY", 1, True],
        "coroutine": "word",
        "missing": "does not exist",
        "args": [["lamp"], {"item": ""}],
    }


# FastAPI and Flask


def ask(address: str, body: object = None) -> tuple[int, Any]:
    """Return the status and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    asked = Request(address, data, {"Content-Type": "application/json"})
    try:
        with urlopen(asked, timeout=60) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        return error.code, json.load(error)


@contextmanager
def shop(name: str, server: list[str], url: str, tmp_path: Path, eventually: Eventually) -> Iterator[str]:
    """Run a worker and the web server of an example; yield its address."""
    folder, port = EXAMPLES / name, str(free_port())
    env = environment(MILLPOND_BROKER_URL=url, MILLPOND_KINDS="shop_kinds", PYTHONPATH=str(folder))
    worker = ["-m", "millpond", "worker", "default"]
    with (
        program(worker, tmp_path, env, tmp_path / "worker", "takes messages", eventually),
        program([*server, "--port", port], folder, env, tmp_path / "web", "unning on", eventually),
    ):
        yield f"http://127.0.0.1:{port}"


def test_fastapi_sends_and_waits(url: str, tmp_path: Path, eventually: Eventually) -> None:
    """The dependency is one client for the application's life, for routes and for coroutines."""
    with shop("fastapi_app", ["-m", "uvicorn", "shop:app"], url, tmp_path, eventually) as web:
        assert ask(f"{web}/orders", {"item": "lamp"})[0] == 202
        assert ask(f"{web}/orders", {"thing": "lamp"})[0] == 422
        status, sent = ask(f"{web}/deliveries", [{"item": "lamp"}, {"item": "sofa"}])
        assert status == 202
        assert ask(f"{web}/deliveries/{sent['batch']}") == (200, ["lamp, packed", "sofa, packed"])


def test_flask_sends_and_waits(url: str, tmp_path: Path, eventually: Eventually) -> None:
    """Three lines replace an extension: one client for all threads of the server."""
    pytest.importorskip("flask")
    with shop("flask_app", ["-m", "flask", "--app", "shop", "run"], url, tmp_path, eventually) as web:
        assert ask(f"{web}/orders", {"item": "lamp"})[0] == 202
        assert ask(f"{web}/orders", {"thing": "lamp"})[0] == 422
        assert ask(f"{web}/deliveries", ["lamp", "sofa"]) == (200, ["lamp, packed", "sofa, packed"])

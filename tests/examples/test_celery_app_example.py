"""Somebody's own Celery application under `millpond worker --app`.

Results, canvas, retries and hooks as on stock.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.harness.run_to_end import run_to_end

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

FOLDER = Path(__file__).parents[2] / "examples" / "celery_app"

#: What an application's own program does with its tasks, as a program of its own: stock Celery, nothing of
#: Millpond.
PROGRAM = """
import json
from celery import chain, chord, group
from shop import add, on_error, price, progress, total, unreachable

seconds = 60
said = {
    "result": add.delay(2, 3).get(seconds),
    "chain": chain(add.s(1, 2), add.s(3)).apply_async().get(seconds),
    "group": group(add.s(n, n) for n in range(3)).apply_async().get(seconds),
    "chord": chord([add.s(n, n) for n in range(3)], total.s()).apply_async().get(seconds),
    "retry": price.delay("lamp").get(seconds),
    "eta": add.apply_async((1, 1), countdown=0.5).get(seconds),
    "state": progress.delay().get(seconds),
    "ignored": add.apply_async((1, 1), ignore_result=True).id != "",
}
failed = unreachable.apply_async(link_error=on_error.s())
try:
    failed.get(seconds)
except OSError as error:
    said["error"] = str(error)
said["failed"] = failed.state
print(json.dumps(said))
"""


@pytest.fixture(params=["threads", "prefork"])
def running(
    request: pytest.FixtureRequest, url: str, tmp_path: Path, eventually: Eventually
) -> Iterator[tuple[dict[str, str], Path]]:
    """Run `millpond worker --app shop default` where the application lies.

    Yield the environment and the log.
    """
    log, toml = tmp_path / "log", tmp_path / "millpond.toml"
    toml.write_text(
        f'drain_seconds = 5\n[pools.default]\nexecutor = "{request.param}"\nprocesses = 1\nconcurrency = 2\n'
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("MILLPOND_")}
    env |= {
        "SHOP_BROKER": url,
        "SHOP_AUDIT": str(tmp_path / "audit"),
        "MILLPOND_CONFIG": str(toml),
        "PYTHONPATH": str(FOLDER),
    }
    command = [sys.executable, "-P", "-m", "millpond", "worker", "--app", "shop", "default"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=out, stderr=out)
    try:
        eventually(lambda: "takes messages" in log.read_text() or process.poll() is not None, 30)
        yield env, log
    finally:
        process.terminate()
        code = process.wait(60)
    assert code == 0, log.read_text()


def test_an_application_runs_as_it_is(running: tuple[dict[str, str], Path], eventually: Eventually) -> None:
    """Results, states, canvas, retries, errbacks and a task base class do what they do on stock."""
    env, log = running
    done = run_to_end([sys.executable, "-P", "-c", PROGRAM], env=env)
    assert done.returncode == 0, done.stderr + log.read_text()
    import json

    assert json.loads(done.stdout) == {
        "result": 5,
        "chain": 6,
        "group": [0, 2, 4],
        "chord": 6,
        "retry": 4,
        "eta": 2,
        "state": "HALF",
        "ignored": True,
        "error": "no route to the shop",
        "failed": "FAILURE",
    }
    audit = Path(env["SHOP_AUDIT"])
    eventually(lambda: "errback no route to the shop" in audit.read_text())
    assert audit.read_text().count("shop.add") == 11


def test_what_is_replaced_is_said_at_the_start(running: tuple[dict[str, str], Path]) -> None:
    """The log names each setting of the application that is replaced, with both values and the reason."""
    said = running[1].read_text()
    assert "Settings of the application that Millpond replaces or cannot honour:" in said
    assert "task_acks_late" in said
    assert "broker_transport_options['visibility_timeout']" in said
    assert "using the broker of shop's own settings" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shopp", "app names 'shopp', and no such module is installed or lies in"),
        *(
            (name, f"app names {name!r}, which is no Celery application: name the variable that holds it")
            for name in ("shop:nothing", "shop:add", "plain")
        ),
        ("broken", "app names 'broken', which cannot be loaded: RuntimeError: no settings"),
    ],
)
def test_an_application_that_cannot_be_loaded_is_one_line(
    name: str, said: str, url: str, tmp_path: Path
) -> None:
    """No worker starts, and one line says what is wrong with the name or the module."""
    (tmp_path / "broken.py").write_text("raise RuntimeError('no settings')\n")
    (tmp_path / "plain.py").write_text("greeting = 'hello'\n")
    env = {**os.environ, "SHOP_BROKER": url, "PYTHONPATH": os.pathsep.join([str(FOLDER), str(tmp_path)])}
    command = [sys.executable, "-P", "-m", "millpond", "worker", "--app", name, "default"]
    done = run_to_end(command, cwd=tmp_path, env=env)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1

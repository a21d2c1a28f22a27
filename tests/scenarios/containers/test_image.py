"""The image's promises: its user, its needs, its end, its contents."""

import json
import secrets
import shutil
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from time import monotonic

import pytest

from millpond import Client, Settings
from millpond.broker.connection import Store, connect
from millpond.broker.inspect import depth as inspect_depth
from millpond.tasks.pools import STOP_MARGIN_SECONDS
from tests.conftest import Eventually
from tests.kinds.host_kinds import Work
from tests.scenarios.containers import images, ledger
from tests.scenarios.containers.images import TOP, run
from tests.scenarios.containers.lone import Lone, lone
from tests.scenarios.containers.stack import Stack, inspect

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
DRAIN_SECONDS = 3

#: A tenth more than it had when this was written: see deploy/README.md.
MOST_MB = 570

#: The sources of the image, and the layers that its code makes: six that are copied, and the compiled files.
CODE = (
    *("deploy/Dockerfile", ".dockerignore", "LICENSE", "requirements.lock", "requirements-prod.lock"),
    *("millpond", "broker", "tasks", "producer", "worker", "monitor"),
)
LAYERS_OF_CODE = 7


@pytest.fixture
def mine(stack: Stack) -> Iterator[Lone]:
    """Containers of the test's own."""
    with lone(stack) as own:
        yield own


@pytest.fixture
def store(mine: Lone) -> Iterator[Store]:
    """A store on the broker of the test's containers."""
    opened = connect(mine.stack.broker_url, prefix=mine.prefix)
    yield opened
    opened.close()


def send(mine: Lone, queue: str, seconds: float, count: int) -> list[str]:
    """Send tasks that hold a slot each and return their ids."""
    with Client(mine.stack.broker_url, settings=Settings(key_prefix=mine.prefix)) as client:
        return [client.send(Work(hold_seconds=seconds), queue=queue).id for _ in range(count)]


def runs(mine: Lone, ids: list[str]) -> dict[str, list[ledger.Run]]:
    """Return the runs of these tasks."""
    return ledger.runs(mine.stack.ledger_url, ids)


def ended(mine: Lone, ids: list[str]) -> bool:
    """True if all of these tasks have been run."""
    return not ledger.lost(ids, runs(mine, ids))


def test_it_runs_without_any_right(image: str, mine: Lone, eventually: Eventually) -> None:
    """Both executors and the command line work on a read-only root, without capabilities, as any user."""
    mine.start(image, "worker", "default", "files")
    ids = send(mine, "default", 0.01, 20) + send(mine, "files", 0.01, 20)
    eventually(lambda: ended(mine, ids), 120)
    assert '"files"' in mine.run(image, "status", "--json")


@pytest.mark.parametrize("pool", ["default", "files"])
def test_docker_stop_while_busy(
    pool: str, image: str, mine: Lone, store: Store, eventually: Eventually
) -> None:
    """`docker stop` ends in time with 0 although a task does not end; nothing is lost or run twice."""
    worker = mine.start(image, "worker", pool, MILLPOND_DRAIN_SECONDS=str(DRAIN_SECONDS))
    endless, short = send(mine, pool, 600, 1), send(mine, pool, 0.2, 60)
    eventually(lambda: len(runs(mine, short)) > 5, 120)
    grace, begun = DRAIN_SECONDS + STOP_MARGIN_SECONDS, monotonic()
    run("docker", "stop", "-t", f"{grace:.0f}", worker)
    took = monotonic() - begun
    assert inspect(worker, "{{.State.ExitCode}} {{.State.OOMKilled}}") == "0 false"
    assert took < grace
    depth = inspect_depth.read_depth(store, pool)
    assert (depth.ready, depth.in_flight, depth.dead) == (61 - len(runs(mine, short)), 0, 0)
    mine.start(image, "worker", pool)
    eventually(lambda: ended(mine, short), 120)
    assert ledger.repeats(runs(mine, short), []) == (0, [])
    assert [run.ended for run in runs(mine, endless)[endless[0]]][:1] == [None]
    print(f"stopped in {took:.1f} s")


def test_the_first_process_reaps(image: str, mine: Lone, eventually: Eventually) -> None:
    """A process whose parent has gone is reaped by the container's first process."""
    worker = mine.start(image, "worker", "default")
    run("docker", "exec", worker, "sh", "-c", "sleep 0.3 & true")

    def left() -> list[str]:
        lines = run("docker", "top", worker, "-eo", "pid,stat,comm").splitlines()[1:]
        return [line for line in lines if "sleep" in line or line.split()[1].startswith("Z")]

    eventually(lambda: not left(), 30)


def test_the_contents_of_the_image(image: str) -> None:
    """The image has its labels, and no compiler, package cache or other need of a build."""
    labels = inspect(image, "{{json .Config.Labels}}")
    assert all(f"org.opencontainers.image.{name}" in labels for name in ("title", "description", "licenses"))
    assert inspect(image, "{{.Config.User}}") == "999:999"
    found = "command -v gcc cc uv; ls -d ~root/.cache /lock /uv /tmp/* 2>/dev/null; true"
    assert run("docker", "run", "--rm", "--entrypoint", "sh", image, "-c", found) == ""
    megabytes = int(inspect(image, "{{.Size}}")) / 1e6
    print(f"{megabytes:.0f} MB")
    assert megabytes < MOST_MB


def test_a_change_of_code_is_built_in_seconds(image: str, tmp_path: Path) -> None:
    """A changed module rebuilds the layers of the code, not those of its dependencies."""
    for name in run("git", "ls-files", *CODE).splitlines():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, tmp_path / name, follow_symlinks=False)
    with (tmp_path / "broker" / "keys.py").open("a") as changed:
        changed.write(f"# {secrets.token_hex(8)}\n")
    begun = monotonic()
    images.build("millpond:changed", tmp_path)
    took = monotonic() - begun
    print(f"built in {took:.1f} s")
    layers = [json.loads(inspect(tag, "{{json .RootFS.Layers}}")) for tag in (image, "millpond:changed")]
    kept = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(*layers, strict=False))))
    assert len(layers[1]) - kept <= LAYERS_OF_CODE

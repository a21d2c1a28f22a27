"""Upgrade and go back under load: the image of the last commit and this one side by side, in both orders."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Eventually
from tests.scenarios.containers import images, ledger
from tests.scenarios.containers.images import TOP, run
from tests.scenarios.containers.lone import Lone, lone
from tests.scenarios.containers.stack import Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]

#: Sends tasks from a container, at 50 a second, and prints their ids: the producer of either image.
PRODUCER = """
import sys, time
from host_kinds import Work
from millpond import Client
with Client() as client:
    for _ in range(int(sys.argv[1])):
        print(client.send(Work(hold_seconds=0.05), queue=sys.argv[2]).id)
        time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def before(image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the image of the last commit and return its tag."""
    folder = tmp_path_factory.mktemp("before")
    packed = subprocess.run(["git", "archive", "HEAD~1"], cwd=TOP, capture_output=True)
    if packed.returncode:
        pytest.skip("there is no commit before this one: a shallow clone?")
    subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
    return images.build("millpond:before", Path(folder))


@pytest.fixture
def mine(stack: Stack) -> Iterator[Lone]:
    """Containers of the test's own."""
    with lone(stack) as own:
        yield own


def send(mine: Lone, image: str, queue: str) -> list[str]:
    """Send 100 tasks from a container of an image and return their ids."""
    return mine.run(image, "-c", PRODUCER, "100", queue, entrypoint="python").split()


@pytest.mark.parametrize("queue", ["default", "files"])
@pytest.mark.parametrize("forwards", [True, False], ids=["upgrade", "going back"])
def test_a_rolling_change(
    forwards: bool, queue: str, image: str, before: str, mine: Lone, eventually: Eventually
) -> None:
    """Messages of either image are run by the other; replacing the workers loses and repeats none."""
    first, second = (before, image) if forwards else (image, before)
    workers = [mine.start(first, "worker", queue)]
    ids = {first: send(mine, first, queue), second: send(mine, second, queue)}
    eventually(lambda: not ledger.lost(ids[second], runs(mine, ids[second])), 120)
    workers.append(mine.start(second, "worker", queue))
    ids[first] += send(mine, first, queue)
    run("docker", "stop", "-t", "40", workers[0])
    ids[first] += send(mine, first, queue)
    ids[second] += send(mine, second, queue)
    everything = ids[first] + ids[second]
    eventually(lambda: not ledger.lost(everything, runs(mine, everything)), 120)
    assert ledger.repeats(runs(mine, everything), []) == (0, [])
    for of, some in ids.items():
        hosts = {each.host for many in runs(mine, some).values() for each in many}
        assert hosts == {worker[:12] for worker in workers}, f"of {of}"


def runs(mine: Lone, ids: list[str]) -> dict[str, list[ledger.Run]]:
    """Return the runs of these tasks."""
    return ledger.runs(mine.stack.ledger_url, ids)

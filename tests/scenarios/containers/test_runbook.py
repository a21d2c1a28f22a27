"""Run every command of deploy/README.md, in its order, in the checkout of a running stack."""

import re
import subprocess

import pytest

from tests.conftest import Eventually
from tests.scenarios.containers import images
from tests.scenarios.containers.conftest import SERVICES
from tests.scenarios.containers.images import TOP
from tests.scenarios.containers.stack import Stack

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]
RUNBOOK = TOP / "deploy" / "README.md"

#: The adaptation of the runbook to this machine: the base image, and the network of a build.
PRELUDE = """
set -euo pipefail
docker() {
    [ "$1" = build ] || { command docker "$@"; return; }
    shift
    "$BUILDER" build --network host --build-arg "BASE=$BASE_IMAGE" "$@"
}
cp() { [ "$1" = .env.example ] || command cp "$@"; }  # the test has filled it in
"""


def commands() -> list[str]:
    """Return the commands of the runbook: the lines of its consoles that begin with a `$`."""
    consoles = re.findall(r"^```console\n(.*?)^```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    return [line[2:] for console in consoles for line in console.splitlines() if line.startswith("$ ")]


def test_every_command_does_what_it_says(stack: Stack, eventually: Eventually) -> None:
    """Each command ends with exit code 0, and after the last one everything is healthy again."""
    builder, options = images.builder()
    env = {**stack.environment, **options, "BUILDER": builder, "BASE_IMAGE": str(images.base())}
    assert commands()
    for command in commands():
        done = subprocess.run(
            ["bash", "-c", PRELUDE + command],
            cwd=stack.folder,
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    stack.up()
    for service in SERVICES:
        eventually(lambda service=service: stack.is_healthy(service), 180, every_seconds=0.5)

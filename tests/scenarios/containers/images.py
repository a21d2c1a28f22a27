"""Build the project's image with the engine and base image that this machine has.

`MILLPOND_TEST_BASE` names the base image, as `engine` beside this file prints it. Without the variable one of
`BASES` is used, if the engine has one.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

TOP = Path(__file__).parents[3]
IMAGE = "millpond:local"
BASES = ("python:3.11.14-slim-bookworm", "millpond-base:local")


def run(*command: str, cwd: Path = TOP, env: Mapping[str, str] | None = None) -> str:
    """Run a command in the checkout and return its output. Raises `AssertionError` if it fails."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done.stdout.strip()


def why_not() -> str | None:
    """Return the reason why no container can run here, or None if one can."""
    for tool in ("docker", "docker-compose"):
        if not shutil.which(tool):
            return f"{tool} is not installed here"
    if subprocess.run(["docker", "info"], capture_output=True).returncode:
        return "no container engine runs here: see tests/scenarios/containers/engine"
    return None if base() else "there is no base image here: run tests/scenarios/containers/engine"


@cache
def base() -> str | None:
    """Return the name of the base image, or None if there is none."""
    named = os.environ.get("MILLPOND_TEST_BASE")
    return named or next((name for name in BASES if _exists(name)), None)


def build(tag: str = IMAGE, context: Path = TOP) -> str:
    """Build the image of a checkout and return its tag."""
    client, options = builder()
    command = (client, "build", "-q", "--network", "host", "--build-arg", f"BASE={base()}")
    run(
        *command, "-f", f"{context}/deploy/Dockerfile", "-t", tag, str(context), env={**os.environ, **options}
    )
    return tag


def _exists(image: str) -> bool:
    return not subprocess.run(["docker", "image", "inspect", image], capture_output=True).returncode


def builder() -> tuple[str, dict[str, str]]:
    """Return a Docker client and the variables with which it builds, by BuildKit if a client here has it.

    A client has BuildKit by the plugin buildx, or built in before version 23.
    """
    for client in filter(os.path.exists, (shutil.which("docker") or "", "/usr/bin/docker")):
        version = subprocess.run([client, "--version"], capture_output=True, text=True).stdout.split()[2]
        plugin = subprocess.run([client, "buildx", "version"], capture_output=True).returncode == 0
        if plugin or int(version.split(".")[0]) < 23:
            return client, {"DOCKER_BUILDKIT": "1"}
    return "docker", {"DOCKER_BUILDKIT": "0"}

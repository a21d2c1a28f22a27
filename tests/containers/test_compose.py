"""Run docker-compose.yml for real: every service healthy, a thumbnail and a mail.

`MILLPOND_TEST_BASE` names the base image where the default cannot be pulled: see base-image beside this file.
"""

import os
import secrets
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

pytestmark = [pytest.mark.containers, pytest.mark.timeout(600)]
TOP = Path(__file__).parents[2]
SERVICES = ("valkey", "worker-email", "worker-files", "worker-default", "flower")
Run = Callable[..., str]


def _run(*command: str, **options: object) -> str:
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module", name="compose")
def compose_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Build the image, start everything, and take it down with its volumes; return `compose(arguments…)`."""
    tools = shutil.which("docker-compose"), shutil.which("docker")
    if not all(tools) or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no container engine runs here")
    env = tmp_path_factory.mktemp("compose") / "env"
    values = {
        "VALKEY_PASSWORD": secrets.token_urlsafe(24),
        "FLOWER_LOGIN": "ann:secret",
        "FLOWER_PORT": "0",
        "VALKEY_IMAGE": "millpond:local",
        "SMTP_HOST": "sink",
        "SMTP_PORT": "2525",
        "SITE_PACKAGES": sysconfig.get_path("purelib"),
    }
    env.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    base = os.environ.get("MILLPOND_TEST_BASE")
    chosen = ["--build-arg", f"BASE={base}"] if base else []
    build = ("docker", "build", "-q", "--network", "host", *chosen, "-f", "deploy/Dockerfile")
    _run(*build, "-t", "millpond:local", ".", env={**os.environ, "DOCKER_BUILDKIT": "1"})
    project = f"millpond-{secrets.token_hex(4)}"
    files = ("-f", "docker-compose.yml", "-f", "tests/containers/sink.yml")

    def compose(*arguments: str) -> str:
        return _run("docker-compose", "--env-file", str(env), "-p", project, *files, *arguments)

    try:
        compose("up", "-d", "--no-build")
        yield compose
    finally:
        compose("down", "-v", "--timeout", "10")


def _container(compose: Run, service: str) -> str:
    return compose("ps", "-q", service).strip()


def _put(compose: Run, source: Path, name: str) -> None:
    with source.open("rb") as data:
        target = ("docker", "exec", "-i", _container(compose, "worker-files"), "sh", "-c")
        subprocess.run([*target, f"cat >/srv/files/{name}"], stdin=data, check=True)


def test_every_service_becomes_healthy(compose: Run, eventually: Callable[..., object]) -> None:
    """After `up`, every service says that it works."""
    state = ("docker", "inspect", "-f", "{{.State.Health.Status}}")
    for service in SERVICES:
        name = _container(compose, service)
        eventually(lambda name=name: _run(*state, name).strip() == "healthy", 120, every_seconds=0.5)


def test_a_thumbnail_and_a_mail_go_through(compose: Run, tmp_path: Path) -> None:
    """The command line in a container makes a thumbnail and sends a mail."""
    Image.effect_noise((1200, 800), 50).convert("RGB").save(tmp_path / "p.jpg")
    _put(compose, tmp_path / "p.jpg", "p.jpg")
    run = ("run", "--rm", "-T", "cli")
    compose(*run, "files", "thumbnail", "/srv/files/p.jpg", "--out", "/srv/files/thumbs")
    compose("exec", "-T", "worker-files", "test", "-s", "/srv/files/thumbs/p.jpg")
    mail = ("--from", "me@example.org", "--to", "ann@example.org", "--subject", "Hello", "--text", "Hi Ann")
    compose(*run, "email", "send", *mail)
    assert "Hi Ann" in compose("logs", "--no-color", "sink")

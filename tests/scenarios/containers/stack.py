"""Run docker-compose.yml of a clean checkout, under a name of its own, with an overlay for the tests."""

import hashlib
import os
import re
import secrets
import shutil
import socket
from pathlib import Path

from tests.scenarios.containers.images import IMAGE, TOP, run


class Stack:
    """One project of docker-compose. `folder` becomes a checkout, with an `.env` for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = f"millpond-{secrets.token_hex(4)}"
        broker, ledger, flower, gateway = _free_ports(4)
        password, self.token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self.broker_url = f"redis://:{password}@127.0.0.1:{broker}/0"
        self.ledger_url = f"redis://127.0.0.1:{ledger}/0"
        self.flower_url = f"http://127.0.0.1:{flower}"
        self.gateway_url = f"http://127.0.0.1:{gateway}"
        self.login = ("ann", secrets.token_urlsafe(12))
        #: The environment of a shell in which the runbook's commands act on this project.
        self.environment = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": "docker-compose.yml:tests/scenarios/containers/observed.yml",
            "BROKER_PORT": str(broker),
            "LEDGER_PORT": str(ledger),
        }
        _check_out(folder)
        self._fill_in(
            VALKEY_PASSWORD=password,
            FLOWER_LOGIN=":".join(self.login),
            FLOWER_PORT=flower,
            GATEWAY_TOKEN_HASH=f"sha256:{hashlib.sha256(self.token.encode()).hexdigest()}",
            GATEWAY_PORT=gateway,
            VALKEY_IMAGE=IMAGE,
        )

    def compose(self, *arguments: str) -> str:
        """Run docker-compose on the project and return its output."""
        return run("docker-compose", *arguments, cwd=self.folder, env=self.environment)

    def up(self, **scale: int) -> None:
        """Start all services. `up(worker_default=3)` runs three containers of `worker-default`."""
        counts = (f"{name.replace('_', '-')}={count}" for name, count in scale.items())
        options = [word for count in counts for word in ("--scale", count)]
        self.compose("up", "-d", "--no-build", *options)

    def remove(self) -> None:
        """Remove all containers, with their volumes."""
        self.compose("down", "-v", "--timeout", "10")

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers, the oldest first."""
        name = f"label=com.docker.compose.project={self.project}"
        number = '{{.Label "com.docker.compose.container-number"}}'
        listed = run(
            *("docker", "ps", "-a", "--no-trunc", "--filter", name),
            *("--filter", f"label=com.docker.compose.service={service}", "--format", f"{number} {{{{.ID}}}}"),
        )
        lines = sorted((line.split() for line in listed.splitlines()), key=lambda line: int(line[0]))
        return [id for _, id in lines]

    def container(self, service: str) -> str:
        """Return the id of the one container of a service."""
        (id,) = self.containers(service)
        return id

    def is_healthy(self, service: str) -> bool:
        """True if every container of a service is healthy."""
        found = self.containers(service)
        health = [inspect(id, "{{.State.Health.Status}}") for id in found]
        return bool(health) and set(health) == {"healthy"}

    def _fill_in(self, **values: object) -> None:
        """Write `.env` as a user would: `.env.example` with its empty values filled in, and other values."""
        given = {name: str(value) for name, value in values.items()}
        lines = (self.folder / ".env.example").read_text()
        filled = re.sub(r"^(\w+)=$", lambda found: f"{found[1]}={given.pop(found[1])}", lines, flags=re.M)
        added = "".join(f"{name}={value}\n" for name, value in given.items())
        (self.folder / ".env").write_text(filled + added)


def inspect(container: str, what: str) -> str:
    """Return a field of a container or image, by a template of `docker inspect`."""
    return run("docker", "inspect", "-f", what, container)


def _free_ports(count: int) -> list[int]:
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in listening]
    for each in listening:
        each.close()
    return ports


def _check_out(folder: Path) -> None:
    """Copy the files that git tracks, or would track after `git add`, into a folder."""
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    for name in filter(None, listed):
        if (TOP / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, folder / name)

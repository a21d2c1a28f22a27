"""Run containers beside the stack with a key prefix of their own: no other worker fetches their tasks."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.scenarios.containers.images import TOP, run
from tests.scenarios.containers.stack import Stack

#: The options of docker-compose.yml, and as in some clusters a user id that the image does not have.
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true"),
    *("--user", "12345:54321"),
)


class Lone:
    """Starts containers with one key prefix, and removes them."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.prefix = f"t-{secrets.token_hex(4)}:"
        self._started: list[str] = []

    def start(self, image: str, *command: str, entrypoint: str = "millpond", **variables: str) -> str:
        """Start a container in the background and return its id."""
        id = run("docker", "run", "-d", *self._options(entrypoint, variables), image, *command)
        self._started.append(id)
        run("docker", "network", "connect", f"{self.stack.project}_ledger", id)
        return id

    def run(self, image: str, *command: str, entrypoint: str = "millpond", **variables: str) -> str:
        """Run a container to its end and return its output."""
        return run("docker", "run", "--rm", *self._options(entrypoint, variables), image, *command)

    def remove(self) -> None:
        """Remove all started containers."""
        with suppress(AssertionError):
            run("docker", "rm", "-f", "-v", *self._started)

    def _options(self, entrypoint: str, variables: dict[str, str]) -> list[str]:
        password = self.stack.broker_url.removeprefix("redis://:").partition("@")[0]
        env = {
            "MILLPOND_BROKER_URL": f"redis://:{password}@valkey:6379/0",
            "MILLPOND_KEY_PREFIX": self.prefix,
            "MILLPOND_KINDS": "host_kinds",
            "PYTHONPATH": "/kinds",
            "LEDGER_URL": "redis://ledger:6379/0",
            "MILLPOND_TABLE__POOLS__FILES__CONCURRENCY": "2",
            **variables,
        }
        given = [word for name, value in env.items() for word in ("-e", f"{name}={value}")]
        mounted = ("-v", f"{TOP / 'tests' / 'kinds'}:/kinds:ro")
        return [
            *HARDENED,
            *mounted,
            *given,
            "--network",
            f"{self.stack.project}_default",
            "--entrypoint",
            entrypoint,
        ]


@contextmanager
def lone(stack: Stack) -> Iterator[Lone]:
    """Yield a `Lone`, and remove its containers at the end of the block."""
    mine = Lone(stack)
    try:
        yield mine
    finally:
        mine.remove()

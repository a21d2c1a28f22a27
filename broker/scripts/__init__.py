"""The Lua scripts. The source of each begins with the shared parts, and the server knows it by its SHA-1."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

#: The shared parts before each script, in this order.
SHARED = ("_queue", "_drain_rate", "_admission", "_aside")


@dataclass(frozen=True)
class Script:
    """The source of a script and its SHA-1."""

    name: str
    source: str
    sha: str

    def command(self, keys: Sequence[str], args: Sequence[Any]) -> tuple[Any, ...]:
        """Return the command that runs the script. A server without the source replies NOSCRIPT."""
        return ("EVALSHA", self.sha, len(keys), *keys, *args)

    def run(self, client: Any, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """Run the script and return its reply. Sends the source if the server does not have it."""
        return self.run_command(client, self.command(keys, args))

    def run_command(self, client: Any, command: Sequence[Any]) -> Any:
        """Run a command that `command` returned, as `run` does."""
        try:
            return client.execute_command(*command)
        except NoScriptError:
            _evalsha, _sha, *rest = command
            return client.execute_command("EVAL", self.source, *rest)


@cache
def script(name: str, package: str = __package__) -> Script:
    """Return the script NAME.lua of a package. Its header names its KEYS, ARGV and return value."""
    shared = "".join(files(__package__).joinpath(f"{part}.lua").read_text() for part in SHARED)
    source = shared + files(package).joinpath(f"{name}.lua").read_text()
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

"""The Lua scripts. The server knows each by the SHA-1 of its source.

The source of a script begins with the shared definitions that it uses. The server carries out every
definition at each call, and all of them would take longer than some scripts.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

#: The files of the shared definitions, in this order: a definition uses only those before it.
SHARED = ("_queue", "_drain_rate", "_admission", "_aside")

_NAME = re.compile(r"[A-Za-z_]\w*")
_COMMENT = re.compile(r"--.*")


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
    own_source = files(package).joinpath(f"{name}.lua").read_text()
    source = "".join((*_definitions_used_in(own_source), own_source))
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def _definitions_used_in(source: str) -> list[str]:
    """Return the shared definitions that a script uses, and those that these use, in order."""
    used_names, used = _names_in(source), []
    for names, definition in reversed(_shared_definitions()):
        if not names.isdisjoint(used_names):
            used_names |= _names_in(definition)
            used.append(definition)
    return used[::-1]


@cache
def _shared_definitions() -> list[tuple[set[str], str]]:
    """Return each shared definition with the names that it defines: `local` at the beginning of a line."""
    shared = "".join(files(__package__).joinpath(f"{part}.lua").read_text() for part in SHARED)
    definitions = re.split(r"^(?=local )", shared, flags=re.MULTILINE)[1:]
    return [(_defined_names(definition), definition) for definition in definitions]


def _defined_names(definition: str) -> set[str]:
    """Return the name of a function, or the names of the values on the left of the first line's `=`."""
    head = re.split(r"[=(\n]", definition, maxsplit=1)[0]
    return set(_NAME.findall(head)) - {"local", "function"}


def _names_in(source: str) -> set[str]:
    """Return all names in a source, but not those in comments."""
    return set(_NAME.findall(_COMMENT.sub("", source)))

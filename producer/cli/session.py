"""Get a client for one command.

Of the configured broker, or of an embedded set-up that lives as long as the command.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from producer.client import Client
    from tasks.settings import Settings

#: Start workers for these pools and a broker of their own; gives the broker's URL while it is entered.
Embedded = Callable[["Settings", Sequence[str]], AbstractContextManager[str]]


@dataclass(frozen=True)
class Surroundings:
    """What the front door supplies to the commands, for the producer imports no worker."""

    embedded: Embedded | None = None


@dataclass(frozen=True)
class Session:
    """A client, and whether its workers end with this command."""

    client: "Client"
    is_embedded: bool


@contextmanager
def session(surroundings: Surroundings | None, *, queue: str, roots: Sequence[str] = ()) -> Iterator[Session]:
    """Open a session for tasks of one queue.

    An embedded set-up gets the pools of that queue and these file roots.
    """
    from producer.client import Client
    from tasks.settings import settings

    chosen = settings()
    if chosen.broker_url is None and surroundings is not None and surroundings.embedded is not None:
        files = chosen.files.model_copy(update={"roots": (*roots, *chosen.files.roots)})
        own = chosen.model_copy(update={"files": files})
        if sys.stderr.isatty():
            print("no broker is configured: starting one and its workers for this command …", file=sys.stderr)
        with (
            surroundings.embedded(own, chosen.table.pools_of(queue)) as url,
            Client(url, settings=own) as client,
        ):
            yield Session(client, is_embedded=True)
        return
    with Client(settings=chosen) as client:
        yield Session(client, is_embedded=False)


@contextmanager
def configured() -> Iterator["Client"]:
    """Open a client of the configured broker, for commands that look at what is there."""
    from producer.client import Client

    with Client() as client:
        yield client

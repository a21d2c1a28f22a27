"""Get a client for one command.

Of the configured broker; where none is, of a `millpond up` that runs here and has workers for the task, or
else of an embedded set-up that lives as long as the command.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millpond.producer.client import Client
    from millpond.tasks.process.running_up import Nearby
    from millpond.tasks.settings import Settings

#: Start workers for these pools and a broker of their own; gives the broker's URL while it is entered.
Embedded = Callable[["Settings", Sequence[str]], AbstractContextManager[str]]


@dataclass(frozen=True)
class Surroundings:
    """What the front door supplies to the commands, for the producer imports no worker."""

    embedded: Embedded | None = None


@dataclass(frozen=True)
class Session:
    """A client, the queue it is for, and whether its workers end with this command."""

    client: "Client"
    queue: str
    is_embedded: bool


@contextmanager
def session(surroundings: Surroundings | None, *, queue: str, roots: Sequence[str] = ()) -> Iterator[Session]:
    """Open a session for tasks of one queue.

    An embedded set-up gets the pools of that queue and these file roots. Raises `UnknownQueue` where it
    would have none.
    """
    from millpond.producer.client import Client
    from millpond.producer.queues import unknown_queue
    from millpond.tasks.extras import of_queues, require
    from millpond.tasks.process.running_up import USED, nearby
    from millpond.tasks.settings import settings

    chosen = settings()
    beside = nearby() if chosen.broker_url is None else None
    lack = _lack(beside, queue, roots) if beside else None
    if beside and not lack:
        _say(USED)
        chosen = beside.adopted(chosen)
    if chosen.broker_url is None and surroundings is not None and surroundings.embedded is not None:
        pools = chosen.table.pools_of(queue)
        if not pools:
            raise unknown_queue(queue, chosen.table.queues)
        if lack:
            _say(f"the millpond up that runs here {lack}: starting a broker and workers for this command")
        elif sys.stderr.isatty():
            _say("no broker is configured: starting one and its workers for this command …")
        queues = (queue for pool in pools for queue in chosen.table.pools[pool].queues)
        require("starting a broker and workers for this command", "embedded", *of_queues(queues))
        files = chosen.files.model_copy(update={"roots": (*roots, *chosen.files.roots)})
        own = chosen.model_copy(update={"files": files})
        with (
            surroundings.embedded(own, pools) as url,
            Client(url, settings=own) as client,
        ):
            yield Session(client, queue, is_embedded=True)
        return
    with Client(settings=chosen) as client:
        yield Session(client, queue, is_embedded=False)


@contextmanager
def configured() -> Iterator["Client"]:
    """Open a client of the configured broker or of what runs nearby, for commands that only look."""
    from millpond.producer.client import Client
    from millpond.tasks.process.running_up import settings_or_nearby

    with Client(settings=settings_or_nearby(_say)) as client:
        yield client


def _lack(beside: "Nearby", queue: str, roots: Sequence[str]) -> str | None:
    """Say what a set-up lacks for this command, if anything."""
    from millpond.tasks.errors import BadInput
    from millpond.tasks.files.locations import locate

    if queue not in beside.queues:
        return f"has no workers for the queue {queue}"
    for root in roots:
        try:
            locate(f"{root.rstrip('/')}/file", beside.roots)
        except BadInput:
            return f"may not touch {root} (see its --root)"
    return None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

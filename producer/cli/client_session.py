"""The client of one command.

It is a client of the configured broker. Without a configured broker it is a client of a `millpond up` that
runs on this machine and has workers for the task, or of a broker and workers that are started for the
command and end with it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millpond.producer.client import Client
    from millpond.tasks.process.local_instance import LocalInstance
    from millpond.tasks.settings import Settings

#: Starts a broker and workers of the named pools until the context ends. The context's value is the URL. The
#: `millpond` command passes this function to its commands, because the producer imports no worker.
StartWorkers = Callable[["Settings", Sequence[str]], AbstractContextManager[str]]


@dataclass(frozen=True)
class Session:
    """A client, the queue of the command's tasks, and whether the workers end with the command."""

    client: "Client"
    queue: str
    is_embedded: bool


@contextmanager
def open_session(start_workers: StartWorkers, *, queue: str, roots: Sequence[str] = ()) -> Iterator[Session]:
    """Open a session for tasks of one queue, whose workers may use the file roots.

    A `millpond up` that lacks the queue or a root is not used. Raises `UnknownQueue` if workers have to be
    started and no pool serves the queue.
    """
    from millpond.producer.client import Client
    from millpond.tasks.process.configured_broker import USING_LOCAL
    from millpond.tasks.process.local_instance import find_local_instance
    from millpond.tasks.settings import settings as read_settings

    settings = read_settings()
    local = find_local_instance() if settings.broker_url is None else None
    obstacle = _find_obstacle(local, queue, roots) if local else None
    if local and not obstacle:
        _print_to_stderr(USING_LOCAL)
        settings = local.apply_to(settings)
    if settings.broker_url is None:
        with _embedded_session(start_workers, settings, queue, roots, obstacle) as session:
            yield session
        return
    with Client(settings=settings) as client:
        yield Session(client, queue, is_embedded=False)


@contextmanager
def _embedded_session(
    start_workers: StartWorkers,
    settings: "Settings",
    queue: str,
    roots: Sequence[str],
    obstacle: str | None,
) -> Iterator[Session]:
    """Start a broker, and the workers of a queue with these file roots, and open a session with them.

    `obstacle` is the reason why a running `millpond up` is not used, or None. Raises `UnknownQueue`.
    """
    from millpond.producer.client import Client
    from millpond.producer.queue_cache import unknown_queue_error
    from millpond.tasks.extras import extras_of_queues, require_extras

    pools = settings.table.pools_of(queue)
    if not pools:
        raise unknown_queue_error(queue, settings.table.queues)
    if obstacle:
        _print_to_stderr(
            f"the millpond up that runs here {obstacle}: starting a broker and workers for this command"
        )
    elif sys.stderr.isatty():
        _print_to_stderr("no broker is configured: starting one and its workers for this command …")
    queues = (queue for pool in pools for queue in settings.table.pools[pool].queues)
    require_extras("starting a broker and workers for this command", "embedded", *extras_of_queues(queues))
    files = settings.files.model_copy(update={"roots": (*roots, *settings.files.roots)})
    own = settings.model_copy(update={"files": files})
    with start_workers(own, pools) as url, Client(url, settings=own) as client:
        yield Session(client, queue, is_embedded=True)


def open_client() -> "Client":
    """Return a client of the configured broker, or of the `millpond up` on this machine. Start no worker."""
    from millpond.producer.client import Client
    from millpond.tasks.process.configured_broker import settings_with_broker

    return Client(settings=settings_with_broker())


def _find_obstacle(local: "LocalInstance", queue: str, roots: Sequence[str]) -> str | None:
    """Return why a running `millpond up` cannot serve this command, the end of a sentence, or None."""
    from millpond.tasks.errors import BadInput
    from millpond.tasks.files.locations import locate

    if queue not in local.queues:
        return f"has no workers for the queue {queue}"
    for root in roots:
        try:
            locate(f"{root.rstrip('/')}/file", local.roots)
        except BadInput:
            return f"may not touch {root} (see its --root)"
    return None


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

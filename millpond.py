"""Open the front door: the names that an application imports, and the `millpond` command.

    from millpond import Client, SendEmail

    with Client() as client:
        client.send(SendEmail(sender="shop@example.org", to="ann@example.org", subject="Hello", text="…"))

Names are looked up when they are used, so a producer imports no body and no worker.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.settings import Settings

_NAMES = {
    "producer.client": ("Client",),
    "producer.batch": ("Batch",),
    "producer.message": ("Message",),
    "producer.outcomes": ("RanHere", "Refused", "Sent", "Tally"),
    "broker.batches": ("Result", "Summary"),
    "tasks.contracts": ("Contract",),
    "tasks.bodies": ("body",),
    "tasks.context": ("Context",),
    "tasks.settings": ("Settings", "settings"),
    "tasks.errors": (
        "BadContract",
        "BadInput",
        "BatchClosed",
        "BodyMissing",
        "BrokerAway",
        "Cancelled",
        "DeadlineExceeded",
        "FinalError",
        "MillpondError",
        "QueueFull",
        "RetryLater",
        "UnknownBatch",
        "UnknownKind",
        "UnknownQueue",
    ),
    "tasks.email.contract": ("SendCampaign", "SendEmail"),
    "tasks.files.contract": (
        "Checksum",
        "Compress",
        "ConvertImage",
        "PdfText",
        "Thumbnail",
        "ToParquet",
        "Unpack",
        "file_url",
    ),
    "tasks.squares.contract": ("Square",),
    "worker.embedded": ("embedded",),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)

#: Millpond's own top-level packages: a module of the same name that is found first would hide one.
_FOLDERS = ("broker", "tasks", "producer", "worker", "monitor")

#: The commands: where each is, and what it does.
COMMANDS = {
    "up": ("worker.cli.up:app", "Start a broker, every pool and Flower on this machine"),
    "files": ("producer.cli.files:app", "Run an operation over files, and wait for the results"),
    "email": ("producer.cli.email:app", "Send a mail, or one to each row of a CSV"),
    "status": ("monitor.cli.status:app", "Show the pools and the queues"),
    "top": ("monitor.cli.top:app", "Watch the pools and the queues"),
    "why": ("monitor.cli.why:app", "Say why a pool is slow"),
    "queue": ("monitor.cli.queue:app", "Show, set, pause and resume a queue"),
    "drain": ("monitor.cli.drain:app", "Stop a pool on all hosts, and report until nothing of it runs"),
    "resume": ("monitor.cli.drain:resuming", "Let a drained pool go on"),
    "dead": ("monitor.cli.dead:app", "List, show, requeue and purge dead letters"),
    "batches": ("producer.cli.batches:app", "List the batches opened last"),
    "batch": ("producer.cli.batch:app", "Show, follow, close or cancel a batch"),
    "task": ("producer.cli.task:app", "Find a task, see how far it got, cancel it"),
    "kinds": ("producer.cli.kinds:app", "List what can be sent, with an example each"),
    "worker": ("worker.cli.worker:app", "Run the processes of a pool"),
    "health": ("monitor.health:main", "Ask how a pool is on this machine, for health checks"),
    "scheduler": ("producer.cli.scheduler:app", "Send periodic tasks"),
    "schedules": ("monitor.cli.schedules:app", "List periodic tasks"),
    "flower": ("monitor.cli.flower:app", "Run Flower"),
    "metrics": ("monitor.cli.metrics:app", "Write the metrics for Prometheus, once"),
    "gateway": ("producer.cli.gateway:app", "Serve sending, batches and results over HTTP"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'millpond' has no attribute {name!r}; it has: {', '.join(__all__)}")
    try:
        found = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    except ImportError as error:
        if hidden := _hidden():
            raise ImportError(hidden) from error
        raise
    return found


def __dir__() -> list[str]:
    return [*__all__, "main"]


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the `millpond` command and return its exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["health"]:  # asked every few seconds: nothing else is loaded for it
        from monitor.health import main as health

        return health(given[1:])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8
    try:
        from producer.cli import commands, endings
        from producer.cli.session import Surroundings
    except ImportError:
        if hidden := _hidden():
            sys.exit(f"millpond: {hidden}")
        raise

    command = commands.group(
        COMMANDS,
        help="Worker pools done right, across processes and hosts.",
        epilog="Example: millpond files thumbnail holiday/ --out thumbs",
    )
    return endings.run(command, given, program="millpond", obj=Surroundings(_embedded))


def _hidden() -> str | None:
    """Say which of the user's modules hides one of Millpond's own by its name, if one does."""
    from importlib.util import find_spec
    from pathlib import Path

    for name in _FOLDERS:
        spec = find_spec(name)
        where = Path((spec and spec.origin) or name)
        if where.parent.parent != Path(__file__).parent:
            return (
                f"{where} has the name of a package of Millpond's, which it hides: rename it. "
                f"The names that are taken: {', '.join(_FOLDERS)}"
            )
    return None


def _embedded(settings: "Settings", pools: "Sequence[str]") -> Any:
    from contextlib import contextmanager

    from worker.embedded import embedded

    @contextmanager
    def running() -> "Iterator[str]":
        with embedded(settings, pools=pools, flower=False) as running:
            yield running.url

    return running()


if __name__ == "__main__":
    sys.exit(main())

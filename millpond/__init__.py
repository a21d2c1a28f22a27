"""The names that an application imports, and the `millpond` command.

    from millpond import Client, SendEmail

    with Client() as client:
        client.send(SendEmail(sender="shop@example.org", to="ann@example.org", subject="Hello", text="…"))

A name is imported when it is used, so a producer imports no handler and no worker.
"""

import gc
import importlib
import sys

TYPE_CHECKING = False  # to import `typing` would take a third of the time before `main` can handle Ctrl-C
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from millpond.tasks.settings import Settings

_NAMES_BY_MODULE = {
    "millpond.producer.client": ("Client",),
    "millpond.producer.batch": ("Batch",),
    "millpond.producer.message": ("Call", "Message"),
    "millpond.producer.send_outcomes": ("RanHere", "Refused", "Sent", "Tally"),
    "millpond.broker.batches.record": ("Result", "Summary"),
    "millpond.broker.task_state": ("TaskState",),
    "millpond.tasks.contract": ("Contract",),
    "millpond.tasks.handlers": ("body", "handler"),
    "millpond.tasks.context": ("Context",),
    "millpond.tasks.middleware": ("Middleware", "Sending"),
    "millpond.tasks.settings": ("Settings", "settings"),
    "millpond.tasks.errors": (
        "BadContract",
        "BadInput",
        "BatchClosed",
        "HandlerMissing",
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
    "millpond.tasks.email.contract": ("SendCampaign", "SendEmail"),
    "millpond.tasks.files.contract": (
        "Checksum",
        "Compress",
        "ConvertImage",
        "PdfText",
        "Thumbnail",
        "ToParquet",
        "Unpack",
        "file_url",
    ),
    "millpond.tasks.squares.contract": ("Square",),
    "millpond.worker.local.embedded": ("embedded",),
}
_MODULES = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = sorted(_MODULES)

#: The commands: the Typer application of each, and its help.
COMMANDS = {
    "up": ("millpond.worker.cli.up:app", "Start a broker, every pool and Flower on this machine"),
    "files": ("millpond.producer.cli.files:app", "Run an operation over files, and wait for the results"),
    "email": ("millpond.producer.cli.email:app", "Send a mail, or one to each row of a CSV"),
    "status": ("millpond.monitor.cli.status:app", "Show the pools and the queues"),
    "top": ("millpond.monitor.cli.top:app", "Watch the pools and the queues"),
    "why": ("millpond.monitor.cli.why:app", "Diagnose slow pools"),
    "queue": ("millpond.monitor.cli.queue:app", "Show, set, pause and resume a queue"),
    "drain": (
        "millpond.monitor.cli.drain:app",
        "Drain a pool on all hosts, and report until nothing of it runs",
    ),
    "resume": ("millpond.monitor.cli.drain:resuming", "Resume a drained pool"),
    "adopt": ("millpond.monitor.cli.adopt:app", "Take in what stock Celery workers left"),
    "dead": ("millpond.monitor.cli.dead:app", "List, show, requeue and purge dead letters"),
    "batches": ("millpond.producer.cli.batch:listing", "List the batches opened last"),
    "batch": ("millpond.producer.cli.batch:app", "Show, follow, close or cancel a batch"),
    "task": ("millpond.producer.cli.task:app", "Find a task, see how far it got, cancel it"),
    "kinds": ("millpond.producer.cli.kinds:app", "List what can be sent, with an example each"),
    "config": ("millpond.producer.cli.config:app", "Show every setting, and where it comes from"),
    "doctor": ("millpond.monitor.cli.doctor:app", "Check settings, broker, workers, kinds, mail and storage"),
    "worker": ("millpond.worker.cli.worker:app", "Run the processes of a pool"),
    "health": ("millpond.monitor.cli.health:main", "Check the processes of a pool on this machine"),
    "scheduler": ("millpond.producer.cli.scheduler:app", "Send periodic tasks"),
    "schedules": ("millpond.monitor.cli.schedules:app", "List periodic tasks"),
    "flower": ("millpond.monitor.cli.flower:app", "Run Flower"),
    "metrics": ("millpond.monitor.cli.metrics:app", "Write the metrics for Prometheus, once"),
    "gateway": ("millpond.producer.cli.gateway:app", "Serve sending, batches and results over HTTP"),
}


def __getattr__(name: str) -> "Any":
    """Import a name that is used for the first time."""
    if name in ("app", "celery"):  # `celery -A millpond worker` looks for one of these
        return importlib.import_module("millpond.worker.app").app
    if name not in _MODULES:
        raise AttributeError(f"module 'millpond' has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return [*__all__, "main"]


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run the `millpond` command and return its exit code.

    Without `arguments`, those of this process are used, and Ctrl-C ends the process without a traceback.
    """
    if arguments is not None:
        return _run_command(arguments)
    try:
        from millpond.tasks.process import interrupt

        interrupt.end_on_interrupted_import()
        code = _run_command(sys.argv[1:])
        interrupt.exit_on_interrupt()
        gc.freeze()  # the interpreter would search all objects for cycles several times as it ends
    except KeyboardInterrupt:
        return 130
    return code


def _run_command(arguments: "Sequence[str]") -> int:
    """Run a command line and return its exit code. Replaces stdout and stderr on a terminal."""
    if arguments[:1] == ["health"]:  # a probe that runs every few seconds imports nothing else
        from millpond.monitor.cli.health import main as health

        if sys.stdout.isatty():
            _break_long_lines()
        return health(arguments[1:])
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # the name of a file may not be UTF-8
    from millpond.producer.cli import exit_codes, lazy_commands

    _break_long_lines()

    command = lazy_commands.make_group(
        COMMANDS,
        help="Worker pools done right, across processes and hosts.",
        epilog="Example: millpond files thumbnail holiday/ --out thumbs",
    )
    return exit_codes.run_command(command, arguments, program="millpond", obj=_start_workers)


def _break_long_lines() -> None:
    from millpond.tasks.process.terminal import break_long_lines

    break_long_lines()


def _start_workers(settings: "Settings", pools: "Sequence[str]") -> "Any":
    """Return a context manager that starts a broker and workers of the pools. Its value is the URL."""
    from contextlib import contextmanager

    from millpond.worker.local.embedded import embedded

    @contextmanager
    def broker_and_workers() -> "Iterator[str]":
        with embedded(settings, pools=pools, flower=False) as started:
            yield started.url

    return broker_and_workers()

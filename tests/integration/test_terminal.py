"""Every command in terminals of 60, 80 and 200 columns, into a pipe, without colour, and interrupted."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import millpond
from millpond.broker import audit
from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.producer.client import Client
from millpond.producer.scheduler import Scheduler
from millpond.tasks.schedule import ScheduleSettings
from millpond.tasks.settings import Settings
from tests.harness.flower_process import make_dead_letter
from tests.harness.forked_commands import ForkedCommands
from tests.harness.run_to_end import run_to_end
from tests.harness.terminal import forked, in_terminal, lines_of, real

COMMAND = [sys.executable, "-c", "import sys, millpond; sys.exit(millpond.main())"]
WIDTHS = (60, 80, 200)
QUEUE = "a-queue-of-a-department-with-a-long-name"
ERROR = (
    "ConnectError: the mail server mail.example.org:587 cannot be reached: connection refused, 3 of 5 tries"
)

#: The commands whose output is for people, and a text that it must have.
SHOWN: dict[str, str] = {
    "status": QUEUE,
    "top --once": "paused queue",
    "why": "millpond worker default",
    "queue show default": "max_deliveries",
    "dead list default": "mail.example.org:587",
    "dead show default {letter}": "mail.example.org:587",
    "batches": "a batch with a long description",
    "batch {batch}": "1,000 sent",
    "batch {batch} --failures": "1,000 sent",
    "task {delayed}": "waits on default",
    "task {dead}": "millpond dead show default",
    "kinds": "email.send",
    "schedules": "daily",
    "config": "broker_url",
    "metrics": "millpond_queue_ready",
    "task none": "not found",
    "queue show nothing": "no queue is named",
    "health default": "runs here",
    "drain nothing": "no pool is named",
    "worker nothing": "no pool is named",
}

#: Commands that end well when they are interrupted: so one stops them.
SERVERS = {"up", "worker", "scheduler", "flower", "gateway"}
ARGUMENTS = {
    "batch": ["none", "--follow"],
    "task": ["none"],
    "worker": ["default"],
    "drain": ["default"],
    "resume": ["default"],
    "health": ["default"],
    "queue": ["show", "default"],
    "dead": ["list", "default"],
    "files": ["checksum", "."],
    "email": ["send", "--to", "ann@example.org"],
}


@pytest.fixture(scope="module")
def shop(module_url: str, module_store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Fill a broker with objects to show; return their names."""
    store = module_store
    publish(store, [compose("squares.square", {"n": n}, queue=QUEUE, sent_at_ms=0) for n in range(1_234)])
    store.client.sadd("millpond:queues", QUEUE, "default")
    dead = make_dead_letter(store, "default", "ConnectError", ERROR, kind="squares.square", kwargs={"n": 1})
    store.client.delete("millpond:{default}:consumers")  # the state is the same at every look
    delayed = compose("squares.square", {"n": 1}, queue="default", sent_at_ms=0, due_ms=2**42)
    batch = record.open_batch(store, description="a batch with a long description, as one may want it")
    waiting = [
        compose("squares.square", {"n": n}, queue="default", sent_at_ms=0, batch=batch) for n in range(1_000)
    ]
    publish(store, [delayed])
    for from_ in range(0, 1_000, 100):
        publish(store, waiting[from_ : from_ + 100])
    audit.record_change(
        store, "ann", f"paused queue {QUEUE} for the night, for its mail server cannot be reached"
    )
    with Client(settings=Settings(broker_url=module_url)) as client:
        Scheduler(
            client, {"daily": ScheduleSettings(kind="squares.square", fields={"n": 7}, every="1d")}
        ).tick()
    [letter] = [id for id, _ in store.client.xrange("millpond:{default}:dead")]
    return {"letter": letter.decode(), "batch": batch, "delayed": delayed.id, "dead": dead}


@pytest.fixture(scope="module")
def env(module_url: str, shop: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of the commands."""
    config = tmp_path_factory.mktemp("config") / "millpond.toml"
    config.write_text('[schedule.daily]\nkind = "squares.square"\nfields = { n = 7 }\nevery = "1d"\n')
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    return {
        **kept,
        "MILLPOND_BROKER_URL": module_url,
        "MILLPOND_CONFIG": str(config),
        "MILLPOND_SCRATCH": str(config.parent),  # no worker of another test runs there
        "TERM": "xterm",
    }


def filled(command: str, shop: Mapping[str, str]) -> list[str]:
    """Return the words of a command, with the names of the objects in the shop."""
    return command.format(**shop).split()


def piped(argv: list[str], env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run a command into a pipe."""
    return run_to_end(argv, env=env)


def is_whole(line: str, columns: int) -> bool:
    """True where a line fits, or cannot be broken at a space, or is to be copied or read by a machine."""
    return len(line) <= columns or " " not in line.strip() or bool(re.match(r"\s*(export |eval |\{)", line))


@pytest.mark.parametrize("command", list(SHOWN))
def test_it_is_whole_in_every_terminal(
    command: str, env: Mapping[str, str], shop: Mapping[str, str], commands: ForkedCommands
) -> None:
    """No word that is in the pipe is cut or broken in a terminal; no escape is in a pipe, nor colour in C."""
    given = filled(command, shop)
    plain = commands.run(given, env)
    said = plain.stdout + plain.stderr
    assert SHOWN[command] in said
    assert "\x1b" not in said
    assert "Traceback (" not in said
    # Words with digits change from look to look, and are not compared.
    words = {word for word in re.split(r"\s+", said) if word and not re.search(r"\d", word)}
    shown = [in_terminal(forked(commands, given, env), columns=columns) for columns in WIDTHS]
    for columns, (code, written) in zip(WIDTHS, shown, strict=True):
        lines = lines_of(written)
        assert code == plain.returncode, written
        assert [line for line in lines if not is_whole(line, columns)] == []
        assert words - {word for line in lines for word in line.split()} == set(), written


@pytest.mark.parametrize("command", ["status", "top --once", "dead list default", "schedules"])
def test_it_is_plain_without_colour_and_in_c(
    command: str, env: Mapping[str, str], shop: Mapping[str, str], commands: ForkedCommands
) -> None:
    """NO_COLOR leaves no colour; a C locale without UTF-8 leaves no traceback."""
    words = filled(command, shop)
    _code, written = in_terminal(forked(commands, words, {**env, "NO_COLOR": "1"}), columns=80)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", written)
    c = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    plain = piped([*COMMAND, *words], {**env, **c})
    assert (plain.returncode, "Traceback (" in plain.stderr) == (0, False)
    assert plain.stdout.isascii()


@pytest.mark.parametrize("columns", WIDTHS)
def test_every_help_is_whole(columns: int, env: Mapping[str, str], commands: ForkedCommands) -> None:
    """--help of every command fits every terminal, cuts nothing and has no type of Python."""
    for command in [[], *([name] for name in millpond.COMMANDS), *_subcommands()]:
        code, written = in_terminal(forked(commands, [*command, "--help"], env), columns=columns)
        assert code == 0, (command, written)
        lines = lines_of(written)
        assert [line for line in lines if not is_whole(line, columns)] == [], command
        assert [line for line in lines if re.search(r"<(str|int|float|list)|x[<>]=|\w\.\.\.$", line)] == [], (
            command
        )


def _subcommands() -> list[list[str]]:
    return [
        ["dead", "requeue"],
        ["queue", "set"],
        ["files", "thumbnail"],
        ["email", "campaign"],
        ["gateway", "token"],
    ]


def test_top_ends_with_q(env: Mapping[str, str]) -> None:
    """Only `q` ends `top`, and the terminal is left as it was."""
    keys = [("millpond top", b"x"), ("millpond top", b"q")]
    code, written = in_terminal(real([*COMMAND, "top", "--every", "200ms"], env), columns=60, keys=keys)
    assert code == 0
    assert written.endswith("\x1b[?1049l")
    lines = lines_of(written)
    assert [line for line in lines if not is_whole(line, 60)] == []
    assert any(QUEUE in line for line in lines)


def test_top_ends_with_ctrl_c(env: Mapping[str, str]) -> None:
    """The terminal is left as it was, with nothing below."""
    code, written = in_terminal(real([*COMMAND, "top"], env), columns=80, keys=[("millpond top", b"\x03")])
    assert code == 130
    assert written.endswith("\x1b[?1049l")


#: A command that says when it has done its first step, from which on Ctrl-C is quiet.
BEGUN = """
import sys, millpond
from millpond.tasks.process import interrupt
quiet = interrupt.end_on_interrupted_import
interrupt.end_on_interrupted_import = lambda: (quiet(), print("begun", flush=True))
sys.exit(millpond.main())
"""
#: The first moments of a command, which are imports; the quick suite has one of each command.
MOMENTS_MS = (20, 120, 270)


@pytest.mark.parametrize(
    ("command", "milliseconds"),
    [
        pytest.param(command, each, marks=() if at == number % len(MOMENTS_MS) else pytest.mark.slow)
        for number, command in enumerate(millpond.COMMANDS)
        for at, each in enumerate(MOMENTS_MS)
    ],
)
def test_an_early_interrupt_is_quiet(
    command: str, milliseconds: int, env: Mapping[str, str], tmp_path: Path
) -> None:
    """Ctrl-C in the first moments ends a command with 130, one line at most, and no traceback."""
    own = {**env, "XDG_STATE_HOME": str(tmp_path)}
    code, said, complaint = interrupted([command, *ARGUMENTS.get(command, [])], own, milliseconds)
    assert "Traceback (" not in said + complaint
    if code in (-signal.SIGINT, 130):
        assert len(complaint.strip().splitlines()) <= 1, complaint
    else:  # it had done all it had to, or was stopped as it is meant to be
        assert code in (0, 1, 2), (code, said, complaint)


def interrupted(words: list[str], env: Mapping[str, str], milliseconds: int) -> tuple[int, str, str]:
    """Interrupt a command so long after its first step; before that, Python itself starts."""
    process = subprocess.Popen(
        [sys.executable, "-c", BEGUN, *words],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(milliseconds / 1000)
    process.send_signal(signal.SIGINT)
    said, complaint = process.communicate(timeout=60)
    return process.returncode, said, complaint


@pytest.fixture(scope="module", autouse=True)
def _end(module_store: Store) -> Iterator[None]:
    yield
    module_store.client.flushdb()

"""`millpond up` as a person runs it: its words, its stop, and its remains."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import millpond
from millpond.broker.server import is_reachable
from millpond.tasks.process.configured_broker import USING_LOCAL
from millpond.tasks.process.local_instance import find_local_instance
from millpond.tasks.settings import Settings
from millpond.worker.local.addresses import find_free_port
from millpond.worker.local.embedded import embedded
from tests.conftest import Alive, Eventually

COMMAND = [sys.executable, "-c", "import sys, millpond; sys.exit(millpond.main())", "up"]


class Up:
    """A running `millpond up`."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self.data = data
        self.process = subprocess.Popen(
            [*COMMAND, "--data", str(data), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a Ctrl-C here must not end pytest
        )

    def read_until(self, words: str) -> str:
        said = ""
        assert self.process.stdout is not None
        while words not in said:
            line = self.process.stdout.readline()
            if not line:
                pytest.fail(f"it ended without saying {words!r}: {said}")
            said += line
        return said

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def rest(self) -> tuple[int, str]:
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start `millpond up` in a folder of the test; its remaining processes are killed at the end."""
    started: list[Up] = []

    def start(name: str, *arguments: str) -> Up:
        started.append(Up(tmp_path / name, *arguments))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()


def test_interrupt_stops_everything_in_order(up: Callable[..., Up], alive: Alive) -> None:
    """`up` prints its programs and their addresses; after Ctrl-C none of them runs; the exit code is 0."""
    running = up("data", "--pool", "default", "--pool", "files")
    said = running.read_until("Ctrl-C stops")
    assert re.search(r"broker  redis://:\*\*@127\.0\.0\.1:\d+/0, private", said)
    assert re.search(r"pool    default: 5 slots \(1 x 5 threads\), queues default", said)
    assert re.search(r"flower  http://127\.0\.0\.1:\d+/", said)
    family = running.family()
    names = " ".join(" ".join(each.cmdline()) for each in family)
    assert all(
        part in names
        for part in (
            "valkey-server",
            "millpond.worker.supervise.supervisor",
            "millpond.worker.process",
            "flower",
        )
    )
    running.process.send_signal(signal.SIGINT)
    code, said = running.rest()
    assert (code, "Stopping: running tasks have 30 s to finish" in said, "Stopped." in said) == (
        0,
        True,
        True,
    )
    assert not alive(family)


def test_two_run_side_by_side_and_no_two_in_one_folder(up: Callable[..., Up]) -> None:
    """Each `millpond up` has its port and its folder; a second in the same folder is refused in one line."""
    first, second = up("a", "--pool", "default", "--no-flower"), up("b", "--pool", "default", "--no-flower")
    first.read_until("Ctrl-C stops")
    second.read_until("Ctrl-C stops")
    found = [each for up in (first, second) if (each := find_local_instance(up.data))]
    assert len({each.broker_url for each in found}) == 2
    assert all(is_reachable(each.broker_url) for each in found)
    third = up("a")
    code, said = third.rest()
    assert code == 1
    assert "another millpond up (process " in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_killed_one_leaves_nothing_behind(
    up: Callable[..., Up], eventually: Eventually, alive: Alive
) -> None:
    """SIGKILL of a `millpond up` leaves no process of it, and the next one starts in the same folder."""
    running = up("data", "--pool", "files")
    running.read_until("Ctrl-C stops")
    family = running.family()
    assert len(family) >= 5
    running.process.kill()
    running.process.wait()
    eventually(lambda: not alive(family))
    eventually(lambda: find_local_instance(running.data) is None)
    with embedded(Settings(), pools=[], data_dir=running.data) as pond:
        assert is_reachable(pond.url)


def test_the_next_start_has_the_same_addresses(
    up: Callable[..., Up], eventually: Eventually, alive: Alive
) -> None:
    """Ports and password are kept, however it ended; an exported URL stays valid."""
    said = []
    for kill in (False, True, True):
        running = up("data", "--pool", "default")
        said.append([line for line in running.read_until("Ctrl-C stops").splitlines() if "://" in line])
        family = running.family()
        running.process.send_signal(signal.SIGKILL if kill else signal.SIGINT)
        running.rest()
        eventually(lambda family=family: not alive(family))
    assert len(said[0]) == 3
    assert said[0] == said[1] == said[2]
    [kept] = Path(running.data).glob("addresses.json")
    assert kept.stat().st_mode & 0o777 == 0o600


def test_addresses_are_taken_as_options_and_kept(up: Callable[..., Up]) -> None:
    """An option that was given once holds from then on; zero asks for another free port."""
    port, other = find_free_port(), find_free_port()
    first = up(
        "data", "--pool", "default", "--port", str(port), "--flower-port", str(other), "--password", "a/b c"
    )
    said = first.read_until("Ctrl-C stops")
    assert f"redis://:a%2Fb%20c@127.0.0.1:{port}/0" in said
    assert f"flower  http://127.0.0.1:{other}/" in said
    first.process.send_signal(signal.SIGINT)
    first.rest()
    second = up("data", "--pool", "default", "--no-flower", "--port", "0")
    said = second.read_until("Ctrl-C stops")
    assert "redis://:a%2Fb%20c@127.0.0.1:" in said
    assert f":{port}/0" not in said


@pytest.mark.parametrize("option", ["--port", "--flower-port"])
def test_a_taken_port_is_one_line_that_says_what_to_do(
    up: Callable[..., Up], tmp_path: Path, option: str
) -> None:
    """A taken port is refused before any program starts, also where it is the port of the last start."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = up("data", "--pool", "default", option, str(port)).rest()
        assert code == 1
        [_starting, line] = said.splitlines()
        assert line == (
            f"millpond: port {port} is in use: stop the program that listens there, or choose another with "
            f"{option} PORT ({option} 0 takes a free one)"
        )
        name = option.strip("-").replace("-", "_")
        (tmp_path / "data" / "addresses.json").write_text(json.dumps({name: port}))
        code, said = up("data", "--pool", "default").rest()
        assert f"port {port}, which it had at its last start, is in use" in said


def test_workers_flower_and_scheduler_use_it(
    up: Callable[..., Up], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually: Eventually
) -> None:
    """Without a configured broker, worker, Flower and scheduler name the `millpond up` they use, and work."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("MILLPOND_BROKER_URL", raising=False)
    (tmp_path / "millpond.toml").write_text(
        '[schedule.seven]\nkind = "squares.square"\nfields = { n = 7 }\nevery = "1d"\n'
    )
    running = up("millpond", "--pool", "email", "--no-flower")
    running.read_until("Ctrl-C stops")
    signs = {
        "worker default": "takes messages after",
        "flower --port 0": "Flower is at http",
        "scheduler": "leading 1 schedules",
    }
    started = {}
    for words in signs:
        with (tmp_path / words).open("w") as log:
            started[words] = subprocess.Popen(
                [*COMMAND[:-1], *words.split()], cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
            )
    try:
        for words, sign in signs.items():
            eventually(lambda words=words, sign=sign: sign in (tmp_path / words).read_text(), 30)
    finally:
        for program in started.values():
            program.terminate()
        codes = [program.wait(60) for program in started.values()]
    assert codes == [0, 0, 0]
    for words in signs:
        assert (tmp_path / words).read_text().count(USING_LOCAL) == 1, words


def test_of_two_at_once_one_says_which_process_runs(up: Callable[..., Up], eventually: Eventually) -> None:
    """Of two starts at the same moment in one folder one runs; the other names its process, in one line."""
    both = [up("data", "--pool", "default", "--no-flower") for _ in range(2)]
    [loser] = eventually(lambda: [each for each in both if each.process.poll() is not None], 30)
    [winner] = [each for each in both if each is not loser]
    code, said = loser.rest()
    assert code == 1
    assert f"another millpond up (process {winner.process.pid}) runs in" in said.splitlines()[-1]
    winner.read_until("Ctrl-C stops")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--password", ""], "--password must have at least one character"),
        (["--root", "/nowhere"], "--root /nowhere is not a folder: create it, or name another"),
        (["--pool", "emial"], "no pool is named 'emial'"),
        (["extra"], "Got unexpected extra argument(s) (extra)."),
    ],
)
def test_a_wrong_option_is_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is answered by its name and its values, before any program starts. (Of ports: test_cli_errors.)"""
    assert millpond.main(["up", "--data", str(tmp_path / "data"), *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out in ("", "Starting…\n")
    assert (shown.err.startswith(f"millpond: {said}"), shown.err.count("\n")) == (True, 1)

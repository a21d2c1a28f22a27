"""The command line in processes of its own, with real workers: output, exit codes, Ctrl-C."""

import hashlib
import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import millpond as front_door
from millpond.broker import limits
from millpond.broker.inspect import depth
from millpond.producer.client import Client
from millpond.tasks.settings import Files, Settings, Smtp, child_environment
from millpond.worker.local.embedded import embedded
from tests.conftest import Eventually
from tests.harness.forked_commands import Done, ForkedCommands
from tests.harness.mail_sink import mail_sink
from tests.harness.millpond_command import MILLPOND, run_millpond, start_millpond
from tests.harness.run_to_end import run_to_end

Operator = Callable[..., tuple[int, str]]
Run = Callable[..., Done]


@pytest.fixture(scope="module")
def fleet(root: Path, module_url: str) -> Iterator[Settings]:
    """Run file and mail workers on a configured broker, with a mail server that takes everything."""
    with mail_sink() as sink:
        settings = Settings(
            broker_url=module_url,
            key_prefix="cli:",
            files=Files(roots=(str(root),)),
            smtp=Smtp(host="127.0.0.1", port=sink.port),
        )
        with embedded(settings, pools=["files", "email"]) as running:
            yield running.settings


@pytest.fixture
def run(commands: ForkedCommands) -> Run:
    """Return `run(settings, *words, stdin_text="")`, which runs a command to its end."""
    return lambda settings, *words, **stdin: commands.run(words, child_environment(settings), **stdin)


def make_files(folder: Path, count: int) -> Path:
    """Make a folder of so many files, and return it."""
    folder.mkdir(exist_ok=True)
    for n in range(count):
        (folder / f"{n}.txt").write_text(str(n))
    return folder


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_checksums_are_printed_as_sha256sum_does(run: Run, fleet: Settings, root: Path) -> None:
    """Each file's digest is on a line of its own, and the exit code is 0."""
    folder = root / "sums"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    done = run(fleet, "files", "checksum", str(folder))
    assert done.returncode == 0, done.stderr
    expected = {f"{hashlib.sha256(n.encode()).hexdigest()}  {folder}/{n}" for n in ("a", "b")}
    assert set(done.stdout.splitlines()) == expected
    assert "2 succeeded, 0 failed" in done.stderr


def test_a_machine_gets_one_object_a_line(run: Run, fleet: Settings, root: Path) -> None:
    """--json gives an object for each input, the summary last; a failure has its reason and exits with 1."""
    folder = root / "json"
    folder.mkdir()
    (folder / "good.txt").write_text("good")
    (folder / "link.txt").symlink_to("/etc/hostname")
    paths = f"{folder}/good.txt\n{folder}/link.txt\n{folder}/gone.txt\n"
    done = run(fleet, "files", "compress", "-", "--out", str(root / "packed"), "--json", stdin_text=paths)
    assert done.returncode == 1, done.stderr
    *results, last = objects(done.stdout)
    states = {Path(result["input"]).name: result["state"] for result in results}
    assert states == {"good.txt": "succeeded", "link.txt": "failed", "gone.txt": "skipped"}
    assert all(result["error"] for result in results if result["state"] != "succeeded")
    assert (root / "packed" / "good.txt.zst").is_file()
    counts = {name: last["summary"][name] for name in ("sent", "succeeded", "failed", "skipped", "pending")}
    assert counts == {"sent": 2, "succeeded": 1, "failed": 1, "skipped": 1, "pending": 0}


def test_a_campaign_sends_a_mail_to_each_good_row(run: Run, fleet: Settings, root: Path) -> None:
    """Each row is a mail; one that cannot be is named with its line, and makes the exit code 1."""
    people = root / "people.csv"
    people.write_text("email,name\nann@example.org,Ann\nnobody,Bob\ncay@example.org,Cay\n")
    words = ["--from", "shop@example.org", "--subject", "Hello {{ name }}", "--text", "Dear {{ name }}"]
    done = run(fleet, "email", "campaign", str(people), *words, "--json")
    assert done.returncode == 1, done.stderr
    *results, last = objects(done.stdout)
    good = {result["input"] for result in results if result["state"] == "succeeded"}
    assert good == {"ann@example.org", "cay@example.org"}
    assert f"{people}, line 3: " in done.stderr
    assert (last["summary"]["sent"], last["summary"]["skipped"]) == (2, 1)


def test_one_mail_is_sent_and_its_id_printed(run: Run, fleet: Settings) -> None:
    """`email send` waits until the server took the mail, and prints its Message-ID."""
    words = ["--from", "a@example.org", "--to", "b@example.org", "--text-file", "-"]
    done = run(fleet, "email", "send", *words, stdin_text="hi")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sent to b@example.org as <")


def test_more_files_than_the_queue_holds_go_through(run: Run, fleet: Settings, root: Path) -> None:
    """A bound smaller than the number of inputs slows the producer and loses nothing."""
    folder = make_files(root / "many", 60)
    with Client(settings=fleet) as client:
        limits.change_limits(client.store, "files", bound=5)
        done = run(fleet, "files", "checksum", str(folder))
        limits.change_limits(client.store, "files", bound=None)
        assert depth.read_depth(client.store, "files").counters["high_water"] <= 5
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 60


def test_a_reader_that_goes_away_ends_the_command_quietly(fleet: Settings, root: Path) -> None:
    """`millpond … | head -1` shows no traceback."""
    folder = make_files(root / "pipe", 20)
    shell = run_in_bash(fleet, f"{' '.join(MILLPOND)} files checksum {folder} | head -n 1")
    assert len(shell.stdout.splitlines()) == 1
    assert "Traceback" not in shell.stderr
    assert "Exception" not in shell.stderr


def run_in_bash(fleet: Settings, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash to its end, and return its exit code and output."""
    return run_to_end(["bash", "-c", line], env=child_environment(fleet))


@pytest.mark.parametrize("command", ["kinds", "status", "--help", "health default"])
def test_a_reader_that_reads_nothing_ends_the_command_quietly(fleet: Settings, command: str) -> None:
    """With `millpond … | true` no command reports a fault in Millpond; a health check keeps its answer."""
    shell = run_in_bash(fleet, f"{' '.join(MILLPOND)} {command} | exec 0<&-; echo ${{PIPESTATUS[0]}}")
    code = shell.stdout.strip()
    assert (code in ("0", "1") if command.startswith("health") else code == "141", shell.stderr) == (True, "")


@pytest.mark.parametrize("command", ["kinds", "status --json", "--help"])
def test_output_on_a_full_disk_is_one_line_and_a_failure(fleet: Settings, command: str) -> None:
    """With `millpond … > /dev/full` a command prints that it cannot write, and no fault in Millpond."""
    shell = run_in_bash(fleet, f"{' '.join(MILLPOND)} {command} > /dev/full")
    line = "millpond: the output cannot be written: No space left on device\n"
    assert (shell.returncode, shell.stderr) == (1, line)


@pytest.fixture
def operator(
    fleet: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Operator:
    """Run commands in this process on the fleet's broker: `operator("status")` gives (code, output)."""
    for name, value in child_environment(fleet).items():
        if name.startswith("MILLPOND_"):
            monkeypatch.setenv(name, value)

    def command(*arguments: str) -> tuple[int, str]:
        code = front_door.main(arguments)
        shown = capsys.readouterr()
        return code, shown.out if code == 0 else shown.err

    return command


def test_status_names_pools_and_queues(fleet: Settings, operator: Operator) -> None:
    """`status` shows pools with their slots, and queues with the workers that take from them."""
    lines = objects(operator("status", "--json")[1])
    shown = {f"{line['type']} {line[line['type']]}": line for line in lines}
    assert shown["pool files"]["slots"] == fleet.table.pools["files"].slots
    assert shown["queue files"]["consumers"] >= 1
    assert shown["queue default"]["consumers"] == 0
    table = operator("status")[1]
    assert table.startswith("pool ")
    assert "no worker" in table


def test_an_operator_changes_a_queue_and_takes_it_back(fleet: Settings, operator: Operator) -> None:
    """`queue set` and `pause` hold at once, `--unset` and `resume` go back to the pools table."""

    def in_force() -> dict[str, Any]:
        limits: dict[str, Any] = json.loads(operator("queue", "show", "email", "--json")[1])["limits"]
        return {name: limits[name] for name in ("bound", "rate", "paused")}

    assert operator("queue", "set", "email", "--bound", "77", "--rate", "2.5")[0] == 0
    assert operator("queue", "pause", "email")[0] == 0
    assert in_force() == {"bound": 77, "rate": 2.5, "paused": True}
    assert "paused" in operator("status")[1]
    assert operator("queue", "resume", "email")[0] == 0
    assert operator("queue", "set", "email", "--unset", "bound", "--unset", "rate")[0] == 0
    with Client(settings=fleet) as client:
        limits.declare_limits(
            client.store, "email", fleet.table.queues["email"].broker_limits(), authoritative=True
        )
    assert in_force() == {"bound": fleet.table.queues["email"].bound, "rate": 0.0, "paused": False}


@pytest.fixture
def alone(url: str, prefix: str, tmp_path: Path) -> Settings:
    """Configure a broker that no worker serves, with room for three files."""
    settings = Settings(broker_url=url, key_prefix=prefix)
    with Client(settings=settings) as client:
        limits.change_limits(client.store, "files", bound=3)
    make_files(tmp_path, 9)
    return settings


def test_ctrl_c_stops_sending_and_says_what_is_under_way(
    run: Run, alone: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    """Ctrl-C stops sending, closes the batch and names it; another leaves with 130; nothing is lost."""
    with Client(settings=alone) as client:
        command = start_millpond(alone, "files", "checksum", str(tmp_path))
        assert command.stderr is not None
        eventually(lambda: depth.read_depth(client.store, "files").ready == 3, 30)
        command.send_signal(signal.SIGINT)
        said = command.stderr.readline()
        (batch,) = client.batches()
        assert f"3 tasks are pending in batch {batch.id}" in said
        assert f"millpond batch {batch.id}" in said
        assert batch.closed_at_ms is not None
        command.send_signal(signal.SIGINT)
        _out, rest = command.communicate(timeout=60)
        assert command.returncode == 130
        assert "Traceback" not in rest
        assert depth.read_depth(client.store, "files").ready == 3
    shown = run(alone, "batch", batch.id)
    assert "closed, 3 sent, 0 succeeded, 3 pending" in shown.stdout


def test_sigterm_closes_the_batch_and_waits_for_nothing(
    alone: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    """After SIGTERM a command sends no more tasks, leaves the sent ones to the workers, and ends with 143."""
    with Client(settings=alone) as client:
        command = start_millpond(alone, "files", "checksum", str(tmp_path))
        eventually(lambda: depth.read_depth(client.store, "files").ready == 3, 30)
        command.terminate()
        _out, said = command.communicate(timeout=60)
        (batch,) = client.batches()
        assert command.returncode == 143
        assert f"3 tasks are pending in batch {batch.id}. Look at them with: millpond batch" in said
        assert (batch.closed_at_ms is not None, batch.sent, "Traceback" in said) == (True, 3, False)
        assert depth.read_depth(client.store, "files").ready == 3


def test_ctrl_c_once_still_waits_for_what_was_sent(
    fleet: Settings, root: Path, eventually: Eventually
) -> None:
    """After one Ctrl-C the command waits for the tasks it sent, and shows them; its exit code is 130."""
    folder = make_files(root / "waiting", 3)
    with Client(settings=fleet) as client:
        limits.change_limits(client.store, "files", paused=True)
        command = start_millpond(fleet, "files", "checksum", str(folder))
        assert command.stderr is not None
        eventually(lambda: [b for b in client.batches(1) if b.closed_at_ms and b.pending == 3], 30)
        command.send_signal(signal.SIGINT)
        assert "3 tasks are pending" in command.stderr.readline()
        limits.change_limits(client.store, "files", paused=None)
        out, rest = command.communicate(timeout=60)
    assert command.returncode == 130
    assert len(out.splitlines()) == 3
    assert "3 succeeded, 0 failed" in rest


@pytest.mark.slow
def test_a_broker_that_goes_away_meanwhile_is_one_line(tmp_path: Path, eventually: Eventually) -> None:
    """When the broker ends while a command sends, the command says so in one line and exits with 3."""
    from millpond.worker.local.valkey import run_server

    folder = make_files(tmp_path / "in", 9)
    with run_server(tmp_path / "valkey") as server:
        settings = Settings(broker_url=server.url)
        with Client(settings=settings) as client:
            limits.change_limits(client.store, "files", bound=3)
            command = start_millpond(settings, "files", "checksum", str(folder))
            eventually(lambda: depth.read_depth(client.store, "files").ready == 3, 30)
    _out, said = command.communicate(timeout=60)
    assert command.returncode == 3, said
    assert said.count("\n") == 1
    assert re.search("cannot be reached|has been unreachable", said)


def test_without_a_broker_a_command_brings_its_own(tmp_path: Path) -> None:
    """With nothing configured the command runs a broker and workers for its own duration, and leaves none."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.log").write_text("a line\n" * 1000)
    done = run_millpond(Settings(), "files", "compress", "in", "--out", "out/deep", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "deep" / "a.log.zst").is_file()
    assert objects(done.stdout)[-1]["summary"]["succeeded"] == 1

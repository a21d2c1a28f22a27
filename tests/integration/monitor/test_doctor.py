"""`millpond doctor`: whether a set-up works, and the remedy where it does not."""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.producer.client import Client
from millpond.tasks import contract, extras
from millpond.tasks.contract import Contract
from millpond.tasks.settings import Settings, settings
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import Embedded, embedded
from millpond.worker.local.valkey import embedded_binary
from tests.conftest import Eventually
from tests.harness.mail_sink import mail_sink
from tests.harness.own_server import OwnServer, run_own_server

Doctor = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def small() -> Iterator[Embedded]:
    """Run a broker with the pool `default`."""
    with embedded(Settings(drain_seconds=5), pools=["default"]) as up:
        yield up


@pytest.fixture
def doctor(no_settings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Return `doctor(**settings)`: the exit code and the findings of the command, in an empty folder."""
    contract.load_shipped_contracts()
    shipped = {
        name: each
        for name, each in contract.contracts_by_kind().items()
        if each.__module__.startswith("millpond.")
    }
    monkeypatch.setattr(contract, "_kinds", shipped)  # other tests of this process declare their own

    def examine(**values: object) -> tuple[int, list[dict[str, Any]]]:
        for name, value in values.items():
            monkeypatch.setenv(f"MILLPOND_{name.upper()}", str(value))
        settings.cache_clear()
        code = millpond.main(["doctor", "--json"])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return examine


def status(findings: list[dict[str, Any]], words: str) -> str:
    """Return the status of the one finding with these words; all but an `ok` come with a remedy."""
    found = [each for each in findings if words in each["found"]]
    assert len(found) == 1, (words, findings)
    assert bool(found[0]["do"]) == (found[0]["status"] != "ok")
    return str(found[0]["status"])


def test_a_set_up_that_works_is_well(
    small: Embedded, doctor: Doctor, tmp_path: Path, eventually: Eventually
) -> None:
    """Broker, workers, kinds, extras, mail and storage are each a line; warnings do not fail it."""
    (tmp_path / "files").mkdir()
    with mail_sink() as sink:
        smtp = f"host=127.0.0.1,port={sink.port}"
        doctor(broker_url=small.url, files__roots=tmp_path / "files", smtp=smtp)
        eventually(lambda: any("default: 1 of 1 processes" in each["found"] for each in doctor()[1]))
        code, findings = doctor()
    assert code == 0, findings
    assert status(findings, "no millpond.toml here, 3 set by variables") == "ok"
    assert status(findings, "redis://:**@") == "ok"
    assert status(findings, "Valkey ") == "ok"
    assert status(findings, "the broker takes writes") == "ok"
    assert status(findings, "clock and this host's differ by") == "ok"
    assert status(findings, "default: 1 of 1 processes, 0 tasks ready") == "ok"
    assert status(findings, "default: its workers run squares.square") == "ok"
    assert status(findings, "email: 0 of 1 processes") == "warn"
    assert status(findings, "installed here: email, files") == "ok"
    assert status(findings, f"127.0.0.1:{sink.port} answers") == "ok"
    assert status(findings, f"{tmp_path}/files can be read and written") == "ok"


def test_a_broken_part_fails_with_its_remedy(url: str, store: Store, doctor: Doctor, tmp_path: Path) -> None:
    """Tasks without a worker, a missing root, missing templates, an absent mail server: each is a failure."""
    with Client(url, settings=Settings(key_prefix=store.prefix)) as client:
        client.send(Square(n=1))
    code, findings = doctor(
        broker_url=url,
        key_prefix=store.prefix,
        files__roots=tmp_path / "nowhere",
        smtp=f"host=127.0.0.1,port=1,templates={tmp_path}/none",
        traces_endpoint="http://localhost:1",
        image="x",
        queues__lonely__bound=5,
    )
    assert code == 1
    assert status(findings, "default: 0 of 1 processes, 1 tasks ready") == "fail"
    assert status(findings, "nowhere is not a folder here") == "fail"
    assert status(findings, "smtp.templates names") == "fail"
    assert status(findings, "the SMTP server 127.0.0.1:1 cannot be reached") == "fail"
    assert status(findings, "MILLPOND_IMAGE is set, and is not a setting") == "warn"
    assert status(findings, "no pool serves lonely") == "warn"
    assert next(each["do"] for each in findings if "default: 0 of" in each["found"]).endswith(
        "worker default"
    )


def test_a_kind_that_no_process_has_is_named(small: Embedded, doctor: Doctor) -> None:
    """A kind that its queue's workers cannot run fails the check; the line has the setting that adds it."""

    class Hat(Contract, kind="doctor.only"):
        size: int

    code, findings = doctor(broker_url=small.url)
    assert code == 1
    assert status(findings, "default: none of its processes has doctor.only") == "fail"
    assert "MILLPOND_KINDS=MODULE" in next(each["do"] for each in findings if "doctor.only" in each["found"])


def test_limits_in_force_that_are_not_those_here_are_named(url: str, store: Store, doctor: Doctor) -> None:
    """A worker with another table has replaced this one's limits; a limit set at run time is no fault."""
    limits.declare_limits(store, "default", {"bound": 10_000, "rate": 5.0}, authoritative=True)
    limits.change_limits(store, "email", bound=7)
    _, findings = doctor(broker_url=url, key_prefix=store.prefix, queues__default__bound=50)
    assert status(findings, "default: a worker or client has declared other limits") == "warn"
    (text,) = (each["found"] for each in findings if each["check"] == "limits")
    assert text.endswith("in force -> here: bound 10000 -> 50, rate 5/s -> none")


def test_time_limits_that_threads_do_not_keep_are_named(url: str, store: Store, doctor: Doctor) -> None:
    """The pool of the queue has threads, which cannot be killed."""
    _, findings = doctor(broker_url=url, key_prefix=store.prefix, queues__default__soft_limit_seconds=1)
    assert status(findings, "soft_limit_seconds = 1 of queue default will end no handler") == "warn"


def test_middleware_that_cannot_be_loaded_is_a_finding(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process that the setting names it for would end at its start; each name has its own finding."""
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "doctored.py").write_text(
        "from millpond import Middleware\n"
        "class Tenant(Middleware):\n    def on_worker_start(self): ...\n"
        "class Empty(Middleware): ...\n"
    )
    names = ("doctored:Tenant", "doctored:Empty", "doctored:Tenat", "no_such_module_here:Tenant")
    code, findings = doctor(broker_url="redis://127.0.0.1:1/0", middleware=",".join(names))
    assert code == 1
    assert status(findings, "doctored has no 'Tenat'") == "fail"
    assert status(findings, "middleware names 'doctored:Empty', which has no method that") == "fail"
    assert status(findings, "middleware names 'no_such_module_here', and no such module") == "fail"
    assert status(findings, "loaded: doctored:Tenant") == "ok"
    _, findings = doctor(broker_url="redis://127.0.0.1:1/0", middleware="doctored:Tenant,doctored:Tenant")
    assert status(findings, "middleware names 'doctored:Tenant' twice") == "fail"


def test_middleware_of_a_package_that_cannot_be_loaded_is_a_finding(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker starts with it, and the settings need not name it."""
    point = EntryPoint("shop", "no_such_module_here:Tenant", "millpond.middleware")
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [point])
    monkeypatch.setattr("millpond.tasks.middleware._loaded", {})
    _, findings = doctor(broker_url="redis://127.0.0.1:1/0")
    assert status(findings, "the entry point 'shop' of a package cannot be loaded: ModuleNotFound") == "fail"


def test_a_broker_that_is_away_is_a_finding(doctor: Doctor) -> None:
    """With the broker away, the other parts are examined all the same."""
    code, findings = doctor(broker_url="redis://127.0.0.1:1/0")
    assert code == 1
    assert status(findings, "the broker cannot be reached") == "fail"
    assert {each["check"] for each in findings} >= {"settings", "broker", "extras", "mail", "storage"}


@pytest.mark.parametrize(
    ("url", "said"), [(None, "no broker is configured"), ("nonsense", "cannot be used")], ids=str
)
def test_no_broker_and_a_url_that_is_none(url: str | None, said: str, doctor: Doctor) -> None:
    """No broker, and a malformed URL, are each one failed line."""
    code, findings = doctor(**({"broker_url": url} if url else {}))
    assert (code, status(findings, said)) == (1, "fail")


def test_settings_that_cannot_be_read_are_a_finding(doctor: Doctor) -> None:
    """Settings that cannot be read are the only finding: no other check is possible."""
    code, findings = doctor(drain_seconds="soon")
    assert code == 1
    assert [(each["check"], each["status"]) for each in findings] == [("settings", "fail")]
    assert "MILLPOND_DRAIN_SECONDS" in findings[0]["found"]


def test_a_broker_that_may_lose_messages_is_a_warning(doctor: Doctor, tmp_path: Path) -> None:
    """Eviction and a server without a disk are named with the setting that mends it."""
    lines = ["maxmemory 100mb", "maxmemory-policy allkeys-lru"]
    with run_own_server(OwnServer(embedded_binary(), tmp_path / "server", lines)) as server:
        _, findings = doctor(broker_url=server.url)
    assert status(findings, "may evict messages") == "warn"
    assert status(findings, "keeps nothing on disk") == "warn"
    remedies = " ".join(each["do"] for each in findings if each["check"] == "persistence")
    assert "maxmemory-policy noeviction" in remedies
    assert "appendonly yes" in remedies


def test_an_extra_that_is_missing_is_named_with_its_command(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing extra that a setting needs is a failure; one that only a command needs is a warning."""
    monkeypatch.setattr(extras, "missing_packages", lambda *_: {"traces": ["otel"], "flower": ["flower"]})
    _, findings = doctor(traces_endpoint="http://localhost:1")
    assert status(findings, "traces lacks otel") == "fail"
    assert status(findings, "flower lacks flower") == "warn"
    assert "[traces]" in next(each["do"] for each in findings if "traces lacks" in each["found"])


@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_no_line_is_wider_than_the_terminal(
    width: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each finding is wrapped below itself, and the last line counts them; plain ASCII, for LANG=C."""
    monkeypatch.setenv("COLUMNS", width)
    assert millpond.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(width)
    assert lines[-1].endswith("1 failed")
    assert all(line.isascii() for line in lines)


def test_a_command_to_copy_keeps_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a narrow terminal too, the path in a remedy is one word: broken, it names another file."""
    from millpond.monitor.cli.doctor import _finding_lines
    from millpond.monitor.doctor.finding import warn

    monkeypatch.setenv("COLUMNS", "60")
    path = f"/srv/{'a-long-folder-' * 6}/millpond.whl[email]"
    lines = list(_finding_lines(warn("extras", f"{path} lacks minijinja", f"pip install '{path}'")))
    assert sum(path in line for line in lines) == 2

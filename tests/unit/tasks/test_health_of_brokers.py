"""Processes of two brokers, or of two namespaces of one, on a host: a health check sees its own."""

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from millpond.monitor.cli import health
from millpond.tasks.process.application_record import record_application
from millpond.tasks.process.heartbeat_file import HeartbeatFile, boot_clock
from millpond.tasks.process.paths import private_scratch_folder
from millpond.tasks.process.process_namespace import namespace_of


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two processes of the same pool: that of one/0 is live, that of two/0 is frozen. No broker is set."""
    monkeypatch.setenv("MILLPOND_SCRATCH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("BROKER_URL", "KEY_PREFIX", "CONFIG", "APP"):
        monkeypatch.delenv(f"MILLPOND_{name}", raising=False)
    write_heartbeat("redis://user:secret@one/0", "", age_seconds=0)
    write_heartbeat("redis://two/0", "", age_seconds=900)
    return tmp_path


def write_heartbeat(url: str, prefix: str, *, age_seconds: float) -> None:
    """Write the file of a process of this broker and prefix, whose last heartbeat is so old."""
    file = HeartbeatFile("default", 1, namespace=namespace_of(url, prefix))
    state = asdict(file.heartbeat) | {
        "written_at": boot_clock() - age_seconds,
        "loop_at": boot_clock() - age_seconds,
    }
    file.open()
    file.remove()
    path = private_scratch_folder() / f"default.1.{os.urandom(4).hex()}"
    path.write_text(json.dumps(state))


def test_an_empty_variable_stands_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the settings, a variable that is set to nothing replaces the value of millpond.toml."""
    (tmp_path / "millpond.toml").write_text('broker_url = "redis://one/0"\nkey_prefix = "toml:"\n')
    assert health.main(["default", "--live"]) == 1
    monkeypatch.setenv("MILLPOND_KEY_PREFIX", "")
    assert health.main(["default", "--live"]) == 0


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("redis://one/0", 0),
        ("redis://one:6379", 0),
        ("redis://other:word@one:6379/0?socket_timeout=2", 0),
        ("redis://two/0", 1),
        ("redis://one/1", 1),
        ("redis://three/0", 1),
        ("nonsense", 1),
        ("", 1),
    ],
)
def test_a_check_sees_the_processes_of_its_configured_broker(
    url: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another spelling, login or option is the same broker. Without a usable URL it sees all."""
    monkeypatch.setenv("MILLPOND_BROKER_URL", url)
    assert health.main(["default", "--live"]) == code


def test_the_broker_may_be_in_the_file(scratch: Path) -> None:
    """The settings file names the broker as well."""
    (scratch / "millpond.toml").write_text('broker_url = "redis://one/0"')
    assert health.main(["default", "--live"]) == 0
    (scratch / "millpond.toml").write_text('broker_url = "redis://two/0"')
    assert health.main(["default", "--live"]) == 1


@pytest.mark.parametrize(("prefix", "code"), [("a:", 0), (" a:\n", 0), ("b:", 1), ("", 0), (None, 1)])
def test_a_check_sees_the_processes_of_its_key_prefix(
    prefix: str | None, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a setting, a worker may have taken that of its application, so it sees those of each."""
    write_heartbeat("redis://one/0", "a:", age_seconds=0)
    write_heartbeat("redis://one/0", "b:", age_seconds=900)
    monkeypatch.setenv("MILLPOND_BROKER_URL", "redis://one/0")
    if prefix is not None:
        monkeypatch.setenv("MILLPOND_KEY_PREFIX", prefix)
    assert health.main(["default", "--live"]) == code


@pytest.fixture
def shop(scratch: Path) -> Path:
    """The settings name an application and no broker; a process of it runs on one/0 with the prefix a:."""
    (scratch / "millpond.toml").write_text('app = "shop"\n')
    write_heartbeat("redis://one/0", "a:", age_seconds=0)
    record_application("shop", namespace_of("redis://one/0", "a:"))
    return scratch


def test_a_check_without_url_sees_the_broker_of_its_application(shop: Path) -> None:
    """The broker that the processes of `app` have used here: those of other applications do not count."""
    assert health.main(["default", "--live"]) == 0
    write_heartbeat("redis://one/0", "b:", age_seconds=900)
    assert health.main(["default", "--live"]) == 0
    write_heartbeat("redis://one/0", "a:", age_seconds=900)
    assert health.main(["default", "--live"]) == 1


def test_a_process_of_an_application_that_has_ended_is_missed(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process of another application does not stand for it."""
    (shop / "millpond.toml").write_text('app = "ended"\n')
    record_application("ended", namespace_of("redis://three/0", ""))
    assert health.main(["default", "--live"]) == 1
    assert "no process of default runs here" in capsys.readouterr().out


def test_processes_of_one_application_may_use_several_brokers(shop: Path) -> None:
    """As where one has its URL in its environment, and the check has none: each is seen."""
    record_application("shop", namespace_of("redis://two/0", ""))
    record_application("shop", namespace_of("redis://two/0", ""))
    assert health.main(["default", "--live"]) == 1


def test_a_key_prefix_of_the_settings_replaces_that_of_the_application(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The prefix of the settings comes first, as in a worker."""
    write_heartbeat("redis://one/0", "b:", age_seconds=900)
    monkeypatch.setenv("MILLPOND_KEY_PREFIX", "b:")
    assert health.main(["default", "--live"]) == 1


@pytest.mark.parametrize("cause", ["no record", "another folder", "another application", "damaged record"])
def test_without_a_record_of_its_application_a_check_sees_all(
    cause: str, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process is missed because the broker of the application is not known here."""
    record_application("shop", namespace_of("redis://three/0", ""))
    (record,) = (private_scratch_folder() / "applications").iterdir()
    match cause:
        case "no record":
            record.unlink()
        case "another folder":
            (shop / "other").mkdir()
            (shop / "millpond.toml").rename(shop / "other" / "millpond.toml")
            monkeypatch.chdir(shop / "other")
        case "another application":
            monkeypatch.setenv("MILLPOND_APP", "bakery")
        case _:
            record.write_text("half of a li")
    assert health.main(["default", "--live"]) == 1
    for path in private_scratch_folder().glob("default.*"):
        if json.loads(path.read_text())["written_at"] < boot_clock() - 800:
            path.unlink()
    assert health.main(["default", "--live"]) == 0


def test_a_record_that_is_not_written_whole_is_removed(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, a record without the last line would hide a process."""
    (record,) = (private_scratch_folder() / "applications").iterdir()
    monkeypatch.setattr(os, "write", lambda _file, line: len(line) - 1)
    record_application("shop", namespace_of("redis://two/0", ""))
    assert not record.exists()


def test_a_process_of_an_older_version_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that names no broker counts for each."""
    state = asdict(HeartbeatFile("default", 1).heartbeat)
    for name in ("broker", "key_prefix"):
        del state[name]
    (private_scratch_folder() / "default.1.7").write_text(
        json.dumps(state | {"written_at": boot_clock() - 900})
    )
    monkeypatch.setenv("MILLPOND_BROKER_URL", "redis://one/0")
    assert health.main(["default", "--live"]) == 1


def test_a_file_has_no_secret() -> None:
    """Neither a login nor a host is in it."""
    texts = "".join(path.read_text() for path in private_scratch_folder().iterdir())
    assert "secret" not in texts
    assert "user" not in texts

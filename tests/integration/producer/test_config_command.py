"""`millpond config`: every setting in force, its value, its origin and its allowed values."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.tasks.settings import settings

FILE = """\
drain_seconds = "2m30s"

[smtp]
host = "mail.example.org"
username = "shop"
password = "hunter2"
security = "tls"

[queues.email]
rate = "50/s"

[[gateway.tokens]]
name = "shop"
hash = "sha256:%s"

[schedule.nightly]
kind = "files.compress"
every = "1d"
fields = { source = "hunter2" }
"""


@pytest.fixture
def folder(no_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in a folder with a millpond.toml, and four variables set."""
    (tmp_path / "millpond.toml").write_text(FILE % ("a" * 64))
    monkeypatch.setenv("MILLPOND_BROKER_URL", "redis://:hunter2@localhost:1/0")
    monkeypatch.setenv("MILLPOND_SMTP__HOST", "other.example.org")
    monkeypatch.setenv("MILLPOND_POOLS", '{"email": {"concurrency": 7}}')
    monkeypatch.setenv("MILLPOND_FLOWER_BASIC_AUTH", "admin:hunter2")
    return tmp_path


@pytest.fixture
def shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Return the lines of `millpond config --json`, by name."""
    assert millpond.main(["config", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {line["name"]: line for line in lines}


@pytest.mark.parametrize(
    ("name", "value", "origin"),
    [
        ("broker_url", "redis://:**@localhost:1/0", "MILLPOND_BROKER_URL"),
        ("drain_seconds", 150, "millpond.toml line 1"),
        ("smtp.host", "other.example.org", "MILLPOND_SMTP__HOST"),
        ("smtp.username", "shop", "millpond.toml line 5"),
        ("smtp.password", "(hidden)", "millpond.toml line 6"),
        ("smtp.port", 25, "default"),
        ("queues.email.rate", 50, "millpond.toml line 10"),
        ("queues.files.rate", None, "default"),
        ("pools.email.concurrency", 7, "MILLPOND_POOLS"),
        ("pools.email.prefetch", 16, "default"),
        ("pools.files.executor", "prefork", "default"),
        ("flower_basic_auth", "(hidden)", "MILLPOND_FLOWER_BASIC_AUTH"),
        ("gateway.tokens", "(hidden)", "millpond.toml line 12"),
        ("schedule.nightly.every", "1d", "millpond.toml line 18"),
        ("schedule.nightly.fields", "(hidden)", "millpond.toml line 19"),
    ],
)
def test_a_setting_says_where_it_comes_from(
    name: str, value: object, origin: str, shown: dict[str, Any]
) -> None:
    """The origin of a setting is a variable, a line of the file, or the default."""
    assert (shown[name]["value"], shown[name]["from"]) == (value, origin)
    assert shown[name]["may_be"]
    assert shown[name]["description"]


def test_no_secret_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Passwords, logins, digests and the fields of schedules are hidden in every form."""
    for arguments in ([], ["--json"], ["smtp"]):
        assert millpond.main(["config", *arguments]) == 0
        shown = capsys.readouterr().out
        assert "hunter2" not in shown
        assert "a" * 64 not in shown


@pytest.mark.parametrize("width", ["60", "80", "200"])
def test_the_output_is_a_millpond_toml(
    width: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output of `config` is a millpond.toml with the same values, no wider than the terminal."""
    monkeypatch.setenv("COLUMNS", width)
    assert millpond.main(["config"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= int(width)
    values = tomllib.loads(text)
    assert values["smtp"]["host"] == "other.example.org"
    assert values["queues"]["email"]["rate"] == 50
    assert values["pools"]["email"]["concurrency"] == 7
    assert "millpond.toml line 1; a duration, as in 500ms" in " ".join(text.split())


def test_a_name_with_a_dot_is_read_as_it_is_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A queue `orders.high` is written as a table of that name, and chosen with quotes or without."""
    table = '[pools.default]\nqueues = ["orders.high"]\n[queues."orders.high"]\nbound = 7\n'
    (folder / "millpond.toml").write_text(table)
    assert millpond.main(["config"]) == 0
    (folder / "millpond.toml").write_text(written := capsys.readouterr().out)
    assert tomllib.loads(written)["queues"]["orders.high"]["bound"] == 7
    settings.cache_clear()
    for name in ("queues.orders.high", 'queues."orders.high"', "queues.orders.high.bound"):
        assert millpond.main(["config", name]) == 0
        shown = capsys.readouterr().out
        assert shown.startswith('\n[queues."orders.high"]\n')
        assert "\nbound = 7" in shown


def test_names_choose_what_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`config` takes the names of tables and settings; a wrong name is answered by the similar one."""
    assert millpond.main(["config", "--json", "smtp.host", "pools.email"]) == 0
    names = [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]
    assert names[0] == "smtp.host"
    assert all(name.startswith("pools.email.") for name in names[1:])
    assert millpond.main(["config", "smpt"]) == 2
    assert "no setting or table is named 'smpt': did you mean 'smtp'?" in capsys.readouterr().err


def test_an_unknown_variable_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unknown MILLPOND_ variable, perhaps of another program, is named on stderr, and is no error."""
    monkeypatch.setenv("MILLPOND_IMAGE", "x")
    assert millpond.main(["config", "drain_seconds"]) == 0
    assert capsys.readouterr().err == "# MILLPOND_IMAGE is set, and is no setting of Millpond\n"

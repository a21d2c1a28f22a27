"""Every error that a user of the command line can cause is one line with its remedy."""

import importlib
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from typer import Typer
from typer.main import get_command

import millpond
from tests.harness.databases import DATABASES

AWAY = "redis://127.0.0.1:1/0"
MAIL = ["--from", "a@example.org", "--text", "hello"]


@pytest.fixture
def folder(no_settings: Path, tmp_path: Path) -> Path:
    """Run in a folder with a few files, and no broker configured."""
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "people.csv").write_text("email,name\nann@example.org,Ann\n")
    (tmp_path / "nobody.csv").write_text("email\n")
    (tmp_path / "binary.csv").write_bytes(b"email\n\xff\xfe@example.org\n")
    return tmp_path


Failed = Callable[[list[str], int], str]


WRONG = [
    (["nonsense"], "no command is named 'nonsense'. See: millpond --help"),
    (["why", "--probe"], "--probe measures one pool: name it, as in millpond why email --probe"),
    (["why", "files", "--second-slot"], "give --probe too, as in millpond why files --probe --second-slot"),
    (["files", "checksum"], "Missing argument"),
    (["files", "thumbnail", "a.txt"], "Missing option '--out'"),
    (["files", "checksum", "empty"], "empty: holds no file; name files, or --match GLOB"),
    (["files", "checksum", "nope.txt"], "nope.txt: there is no such file or folder"),
    (["files", "checksum", "a.txt", "--algorithm", "rot13"], "algorithm: "),
    (["files", "thumbnail", ".", "--out", "out"], "--match GLOB"),
    (["files", "thumbnail", "a.txt", "--out", "a.txt"], "--out a.txt is a file"),
    (["files", "thumbnail", "a.txt", "--out", "o", "--width", "0"], "width: "),
    (
        ["files", "thumbnail", "a.txt", "--out", "o", "--width", "wide"],
        "--width: 'wide' cannot be used: write a whole number. See: millpond files thumbnail --help",
    ),
    (["files", "thumbnail", "a.txt", "--out"], "Option '--out' requires an argument."),
    (["up", "--port", "http"], "--port: 'http' cannot be used: write a whole number from 0 to 65535. See: "),
    (["up", "--flower-port", "99999"], "--flower-port: '99999' cannot be used: write a whole number from 0"),
    (["gateway", "--port", "-1"], "--port: '-1' cannot be used: write a whole number from 0 to 65535."),
    (["flower", "--port", "1.5"], "--port: '1.5' cannot be used: write a whole number from 0 to 65535."),
    (["queue", "set", "email", "--burst", "x"], "--burst: 'x' cannot be used: write a number from 1"),
    (
        ["queue", "set", "email", "--in-flight", "-1"],
        "--in-flight: '-1' cannot be used: write a whole number",
    ),
    (["batch", "x", "y"], "unexpected extra argument(s) (y). See: millpond batch --help"),
    (["files", "convert", "a.txt", "--out", "o", "--format", "bmp"], "format: "),
    (["files", "checksum", "-", "-"], "name it once"),
    (["email", "send", *MAIL], "at least one recipient"),
    (["email", "send", *MAIL, "--to", "nobody"], "to.0: "),
    (["email", "send", *MAIL, "--to", "b@example.org", "--header", "X"], "has no colon"),
    (["email", "send", *MAIL, "--to", "b@example.org", "--attach", "nope.pdf"], "nope.pdf"),
    (["email", "send", *MAIL, "--to", "b@example.org", "--context", "{"], "--context is not JSON"),
    (["email", "send", *MAIL, "--text-file", "a.txt", "--to", "b@example.org"], "leave one out"),
    (
        ["email", "send", "--from", "a@example.org", "--to", "b@example.org", "--text-file", "x"],
        "x: No such file",
    ),
    (["email", "campaign", "nope.csv", *MAIL], "nope.csv: No such file"),
    (["email", "campaign", "people.csv", *MAIL, "--column", "mail"], "no column 'mail'"),
    (["email", "campaign", "nobody.csv", *MAIL], "has no row after its header"),
    (["email", "campaign", "binary.csv", *MAIL], "UTF-8"),
    (["status"], "set MILLPOND_BROKER_URL"),
    (["batch", "x"], "set MILLPOND_BROKER_URL"),
    (["batches", "--limit", "0"], "--limit: '0' cannot be used: write a whole number from 1 on. See: "),
    (["queue", "set", "email"], "nothing to set"),
    (["queue", "set", "email", "--overflow", "drop"], "is block, reject, shed or "),
    (["queue", "set", "email", "--unset", "colour"], "is not a limit"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG, ids=lambda value: " ".join(value)[:60])
@pytest.mark.usefixtures("folder")
def test_wrong_usage_is_one_line(arguments: list[str], said: str, failed: Failed) -> None:
    """Wrong usage or input exits with 2 and one line on stderr, before any worker is started."""
    line = failed(arguments, 2)
    assert said in line
    assert "Input should" not in line


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["batches"], ["batch", "x"], ["queue", "show", "email"], ["files", "checksum", "a.txt"]],
)
@pytest.mark.usefixtures("folder")
def test_a_broker_that_is_away_exits_with_3(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, failed: Failed
) -> None:
    """A broker that cannot be reached has an exit code of its own."""
    monkeypatch.setenv("MILLPOND_BROKER_URL", AWAY)
    assert "cannot be reached" in failed(arguments, 3)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("MILLPOND_BROKER_URL", "http://example.org", "cannot be used"),
        ("MILLPOND_DRAIN_SECONDS", "soon", "MILLPOND_DRAIN_SECONDS"),
        ("MILLPOND_CONFIG", "nowhere.toml", "nowhere.toml"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_settings_that_cannot_be_used_are_named(
    variable: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, failed: Failed
) -> None:
    """A setting that cannot be used is named in one line."""
    monkeypatch.setenv(variable, value)
    assert said in failed(["status"], 2)


@pytest.mark.usefixtures("folder")
def test_debugging_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With MILLPOND_DEBUG=1 the traceback stands before the line."""
    monkeypatch.setenv("MILLPOND_DEBUG", "1")
    assert millpond.main(["status"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.rstrip().rpartition("\n")[2].startswith("millpond: no broker is configured")


def test_every_command_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    """The help of each command, and of each below it, ends with an example that uses it."""
    paths = list(_commands())
    assert len(paths) > 20
    for path in paths:
        assert millpond.main([*path, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"millpond {' '.join(path)}" in shown.partition("Example: ")[2], path


def _commands() -> Iterator[tuple[str, ...]]:
    """Yield the names of every command, and of every one below it."""
    for name, (target, _) in millpond.COMMANDS.items():
        module, _, attribute = target.partition(":")
        app = getattr(importlib.import_module(module), attribute)
        yield (name,)
        if isinstance(app, Typer):
            yield from ((name, below) for below in getattr(get_command(app), "commands", ()))


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """`millpond --version` prints the installed version."""
    assert millpond.main(["--version"]) == 0
    assert capsys.readouterr().out == f"millpond {version('millpond')}\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["worker", "default"], 2), (["gateway"], 2), (["status"], 1)],
    ids=lambda value: str(value),
)
def test_a_database_that_the_server_does_not_have_is_told_at_once(
    arguments: list[str], code: int, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, failed: Failed
) -> None:
    """The number in the URL is a wrong setting: a worker that waits for the broker would wait for ever."""
    monkeypatch.setenv("MILLPOND_BROKER_URL", f"{url.rpartition('/')[0]}/{DATABASES}")
    said = failed(arguments, code)
    assert "the broker has no database of the number at the end of its URL (DB index is out of range)" in said


def test_kinds_of_ones_own_lie_where_the_command_is_given(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`millpond kinds` lists the kinds of a module in the current folder."""
    (folder / "hats.py").write_text(
        'from millpond import Contract\n\n\nclass Hat(Contract, kind="hat.press"):\n    size: int\n'
    )
    monkeypatch.setenv("MILLPOND_KINDS", "hats")
    monkeypatch.setattr("sys.path", [*sys.path])
    assert millpond.main(["kinds"]) == 0
    assert "hat.press" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["kinds"], ["worker", "default"]], ids=" ".join)
def test_kinds_that_are_nowhere_are_named(
    arguments: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch, failed: Failed
) -> None:
    """A missing module of `kinds` ends a command at once, in one line with the places searched."""
    monkeypatch.setenv("MILLPOND_KINDS", "no_such_hats")
    monkeypatch.setenv("MILLPOND_BROKER_URL", AWAY)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert f"no such module is installed or lies in {folder}" in failed(arguments, 2)


@pytest.mark.parametrize("arguments", [["kinds"], ["worker", "default"]], ids=" ".join)
@pytest.mark.parametrize(
    ("named", "said"),
    [
        (
            "millpond",
            "{folder}/millpond.py is not found, for Python or Millpond has a module of this name: rename",
        ),
        ("calendar", "{folder}/calendar/__init__.py is not found, for Python or Millpond has a module of"),
        ("jobs.py", "kinds names 'jobs.py', a file: name the module, 'jobs'"),
        ("jobs:charge", "kinds names 'jobs:charge': name the module alone, 'jobs'"),
    ],
    ids=["ours", "of Python", "a file", "an object"],
)
def test_a_module_of_kinds_that_is_not_the_one_meant_is_named(
    arguments: list[str], named: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch, failed: Failed
) -> None:
    """A module of `kinds` that another module hides is named: without its kinds all its tasks would fail."""
    for name in ("millpond.py", "jobs.py", "calendar/__init__.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("")
    monkeypatch.setenv("MILLPOND_KINDS", named)
    monkeypatch.setenv("MILLPOND_BROKER_URL", AWAY)
    monkeypatch.setattr("sys.path", [*sys.path])
    assert said.format(folder=folder) in failed(arguments, 2)


@pytest.mark.usefixtures("folder")
def test_a_login_that_the_broker_refuses_is_told_from_one_that_is_away(
    url: str, monkeypatch: pytest.MonkeyPatch, failed: Failed
) -> None:
    """A wrong password is reported as one, not as an absent broker, with the form of a login."""
    password = urlsplit(url).password
    assert password
    monkeypatch.setenv("MILLPOND_BROKER_URL", url.replace(password, "wrong"))
    assert "refuses the login of its URL" in failed(["status"], 3)

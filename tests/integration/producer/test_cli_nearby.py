"""Where no broker is configured, a command uses the `millpond up` that runs here, if that can do its task."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import millpond
from millpond.broker.url import BrokerURL
from millpond.producer.cli.client_session import open_session
from millpond.producer.gateway import serving
from millpond.tasks.errors import SettingsError
from millpond.tasks.process.configured_broker import USING_LOCAL
from millpond.tasks.process.local_instance import LocalInstance, find_local_instance
from millpond.tasks.process.paths import state_folder
from millpond.tasks.settings import Settings
from millpond.worker.local.data_folder import locked_folder


@pytest.fixture
def up(
    url: str, prefix: str, no_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LocalInstance]:
    """A `millpond up` with file workers that may touch one folder; no broker is configured."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    said = LocalInstance(url, key_prefix=prefix, queues=("files",), roots=(str(tmp_path / "allowed"),))
    with locked_folder(state_folder()) as folder:
        folder.write_addresses(said)
        yield said


@pytest.mark.parametrize("arguments", [["status"], ["batches"], ["queue", "show", "files"]])
def test_a_command_that_only_reads_uses_it_and_names_it(
    up: LocalInstance, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """It needs no exported variable, and one line on stderr names the broker that it asked."""
    assert millpond.main(arguments) == 0
    assert capsys.readouterr().err == f"{USING_LOCAL}\n"


def test_the_gateway_serves_it(up: LocalInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """`millpond gateway` beside `millpond up` sends to its broker."""
    served: list[Settings] = []
    monkeypatch.setattr(serving, "serve", lambda configured, **_: served.append(configured))
    assert millpond.main(["gateway"]) == 0
    assert [(each.broker_url, each.key_prefix) for each in served] == [(up.broker_url, up.key_prefix)]


def test_config_names_it_as_the_origin(up: LocalInstance, capsys: pytest.CaptureFixture[str]) -> None:
    """The broker's URL comes from neither a variable nor a file; its password is hidden."""
    assert millpond.main(["config", "--json", "broker_url", "key_prefix", "prefetch"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    beside = "the millpond up that runs here"
    assert [each["from"] for each in shown] == [beside, beside, "default"]
    assert shown[0]["value"] == str(BrokerURL.parse(up.broker_url)) != up.broker_url
    assert shown[1]["value"] == up.key_prefix


def test_the_doctor_examines_it(up: LocalInstance, capsys: pytest.CaptureFixture[str]) -> None:
    """The doctor's line about the broker names its `millpond up`, and its file roots are examined."""
    Path(up.roots[0]).mkdir()
    millpond.main(["doctor"])
    shown = "".join(capsys.readouterr().out.split())
    assert "answers,ofthemillpondupthatrunshere" in shown
    assert f"{up.roots[0]}canbereadandwrittenhere" in shown


def test_a_configured_broker_goes_before_it(
    up: LocalInstance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broker of the environment is used, though a `millpond up` runs here."""
    monkeypatch.setenv("MILLPOND_BROKER_URL", "redis://127.0.0.1:1/0")
    assert millpond.main(["status"]) == 3
    assert USING_LOCAL not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("queue", "below", "said"),
    [
        ("files", "allowed/photos", None),
        ("files", "elsewhere", "may not touch"),
        ("email", "allowed", "has no workers for the queue email"),
    ],
)
def test_a_command_starts_its_own_workers_for_what_it_cannot_do(
    up: LocalInstance,
    queue: str,
    below: str,
    said: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Workers that lack the queue or the folder do not get the task; a line has the reason."""
    started: list[Sequence[str]] = []

    @contextmanager
    def embedded(own: Settings, pools: Sequence[str]) -> Iterator[str]:
        started.append(pools)
        yield up.broker_url

    with open_session(embedded, queue=queue, roots=[str(tmp_path / below)]) as opened:
        assert opened.is_embedded == (said is not None)
    assert len(started) == (said is not None)
    assert (said or USING_LOCAL) in capsys.readouterr().err


def test_one_that_has_ended_is_not_believed(up: LocalInstance) -> None:
    """A state file counts only while its `millpond up` holds the lock."""
    (state_folder() / "again").mkdir()
    (state_folder() / "again" / "lock").touch()
    (state_folder() / "again" / "running.json").write_text(up.to_json())
    assert find_local_instance(state_folder() / "again") is None
    assert find_local_instance() == up


def test_the_error_of_a_program_names_it(up: LocalInstance) -> None:
    """A program uses no unconfigured broker; the error names the running `millpond up`."""
    with pytest.raises(SettingsError, match="the running `millpond up` has printed"):
        millpond.Client()

"""Where no broker is configured, a command and a client use the broker of the Celery application."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import millpond
from millpond.broker.url import BrokerURL
from millpond.monitor.cli import health
from millpond.producer.gateway import serving
from millpond.tasks.errors import SettingsError
from millpond.tasks.process.heartbeat_file import HeartbeatFile, boot_clock
from millpond.tasks.process.process_namespace import namespace_of
from millpond.tasks.settings import Settings, settings
from tests.conftest import Eventually
from tests.harness.millpond_command import MILLPOND
from tests.harness.run_to_end import run_to_end

APPLICATION = """
from celery import Celery

app = Celery("orchard_{number}", broker={url!r}, set_as_current=False)
app.conf.broker_transport_options = {{"global_keyprefix": {prefix!r}}}
print("imported")
"""

_numbers = iter(range(1_000))

#: Writes an application with this broker URL, and configures it. Returns its name.
WriteApplication = Callable[[str], str]


@pytest.fixture
def write_application(
    prefix: str, no_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> WriteApplication:
    """Write an application in the working folder, which the settings name; no broker is configured."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.syspath_prepend(tmp_path)

    def write(url: str) -> str:
        number = next(_numbers)
        (tmp_path / f"orchard_{number}.py").write_text(
            APPLICATION.format(number=number, url=url, prefix=prefix)
        )
        monkeypatch.setenv("MILLPOND_APP", f"orchard_{number}:app")
        settings.cache_clear()
        return f"orchard_{number}:app"

    return write


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--json"],
        ["queue", "show", "default", "--json"],
        ["dead", "list", "default", "--json"],
        ["batches", "--json"],
        ["schedules", "--json"],
        ["adopt", "--json"],
        ["metrics"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_command_uses_it_and_says_so(
    write_application: WriteApplication, url: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One line on stderr names the application. Nothing that it prints as it is imported is in the output."""
    app = write_application(url)
    assert millpond.main(arguments) == 0
    said = capsys.readouterr()
    assert said.err == f"using the broker of {app}'s own settings\n"
    assert "imported" not in said.out


def test_the_gateway_serves_it(
    write_application: WriteApplication, url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway has the application's broker and its key prefix."""
    write_application(url)
    served: list[Settings] = []
    monkeypatch.setattr(serving, "serve", lambda configured, **_: served.append(configured))
    assert millpond.main(["gateway"]) == 0
    assert [(each.broker_url, each.key_prefix) for each in served] == [(url, prefix)]


def test_config_and_the_doctor_name_it_as_the_origin(
    write_application: WriteApplication, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its broker's URL comes from neither a variable nor a file; its password is hidden."""
    app = write_application(url)
    assert millpond.main(["config", "--json", "broker_url"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["from"] == f"{app}'s own settings"
    assert shown["value"] == str(BrokerURL.parse(url))
    millpond.main(["doctor"])
    assert f"answers,of{app}'sownsettings" in "".join(capsys.readouterr().out.split())


def test_a_health_check_sees_the_workers_of_its_broker_alone(
    write_application: WriteApplication,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Eventually[bool],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once the application's worker has ended, that of another application does not stand for it."""
    monkeypatch.setenv("MILLPOND_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    write_application(url)
    other = HeartbeatFile("default", 1, namespace=namespace_of("redis://elsewhere/0", ""))
    other.open()
    with (tmp_path / "log").open("w") as log:
        worker = subprocess.Popen([*MILLPOND, "worker", "default"], stdout=log, stderr=log)
    try:
        eventually(lambda: health.main(["default", "--ready"]) == 0 or other.write(), 60)
    finally:
        worker.terminate()
        worker.wait(30)
    other.write(loop_at=boot_clock())
    assert health.main(["default", "--live"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "no process of default runs here"
    monkeypatch.delenv("MILLPOND_APP")
    assert health.main(["default", "--live"]) == 0


@pytest.mark.parametrize("scheme", ["amqp", "memory"])
def test_a_broker_that_is_not_supported_is_refused_by_its_scheme(
    write_application: WriteApplication, scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one line names the application, the scheme and what to set, and no password."""
    app = write_application(f"{scheme}://user:secret@host//")
    expected = f"the broker of {app}'s own settings ({scheme}://) cannot be used: set MILLPOND_BROKER_URL"
    assert millpond.main(["status"]) != 0
    said = capsys.readouterr().err
    assert expected in said
    assert "secret" not in said
    with pytest.raises(SettingsError) as refused:
        millpond.Client()
    assert expected in str(refused.value)


def test_a_client_uses_it(write_application: WriteApplication, url: str, prefix: str) -> None:
    """`Client()` has the application's broker and its key prefix."""
    write_application(url)
    with millpond.Client() as client:
        assert client.now_ms() > 0
        assert client.store.prefix == prefix


def test_a_client_that_is_made_while_the_application_is_imported_is_refused(
    write_application: WriteApplication, tmp_path: Path, url: str
) -> None:
    """The error says so, for the application's broker is not known yet."""
    module = write_application(url).partition(":")[0]
    with (tmp_path / f"{module}.py").open("a") as file:
        file.write("import millpond\nclient = millpond.Client()\n")
    done = run_to_end([sys.executable, "-c", f"import {module}"], cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert f"Client() is made while {module} is imported" in last
    assert "set MILLPOND_BROKER_URL" in last

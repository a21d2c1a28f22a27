"""A wrong variable or a wrong millpond.toml is answered by one line with its name and the remedy."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wrong_settings import FILES, VARIABLES

from millpond.tasks.configuration.catalog import Setting, list_settings
from millpond.tasks.errors import SettingsError
from millpond.tasks.settings import Settings, settings
from tests.harness.run_to_end import run_to_end

Failed = Callable[[list[str], int], str]

#: No line has these: pydantic's words, a secret, and the words of an internal error.
NEVER = re.compile(r"Input should|Value error|should not have happened|Traceback|pydantic|hunter2|type=")


def test_the_table_is_long_enough() -> None:
    """The table has at least 150 wrong forms, no two the same."""
    assert len({(str(wrong), said) for wrong, said in [*VARIABLES, *FILES]}) >= 150


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize(("variables", "said"), VARIABLES, ids=lambda value: str(value)[:60])
def test_a_wrong_variable_is_named(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, failed: Failed
) -> None:
    """The line names the variable as it was written, and no file that is not there."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    shown = failed(["status"], 2)
    assert said in shown
    assert not NEVER.search(shown)
    assert any(name in shown for name in variables)
    assert "millpond.toml" not in shown


@pytest.mark.parametrize(("text", "said"), FILES, ids=lambda value: str(value)[:60])
def test_a_wrong_file_is_named_with_its_line(text: str, said: str, no_settings: Path, failed: Failed) -> None:
    """The line names the setting, the file and its line, and no variable: none is set."""
    (no_settings / "millpond.toml").write_text(text, "latin-1")
    shown = failed(["status"], 2)
    assert said in shown
    assert not NEVER.search(shown)
    assert "millpond.toml" in shown
    assert "MILLPOND_" not in shown


@pytest.mark.parametrize("number", range(0, len(VARIABLES), 34))
def test_a_sample_through_real_processes(number: int, no_settings: Path) -> None:
    """Every command prints the same line in a process of its own; the sample has all five commands."""
    variables, said = VARIABLES[number]
    env = {**os.environ, **variables}
    command = (["kinds"], ["worker", "default"], ["gateway"], ["scheduler"], ["status"])[number % 5]
    argv = [sys.executable, "-m", "millpond", *command]
    done = run_to_end(argv, env=env, cwd=no_settings)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not NEVER.search(done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.usefixtures("no_settings")
def test_the_stock_way_says_it_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings error under `celery -A millpond worker` is one line, not a traceback of the import."""
    monkeypatch.setenv("MILLPOND_DRAIN_SECONDS", "soon")
    argv = [str(Path(sys.executable).with_name("celery")), "-A", "millpond", "worker"]
    done = run_to_end(argv)
    assert done.returncode == 1
    assert done.stderr.startswith("celery: MILLPOND_DRAIN_SECONDS: 'soon' cannot be used: write a duration")
    assert (done.stderr + done.stdout).count("\n") == 1


def test_a_queue_that_no_pool_takes_from_is_told(no_settings: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A queue's table with a mistyped name gives one warning, with the similar name."""
    (no_settings / "millpond.toml").write_text("[queues.emial]\nrate = 5\n[queues.zebra]\nrate = 5\n")
    settings()
    settings()
    said = "no pool takes from the queue emial: did you mean email?"
    assert caplog.messages == [said]


@pytest.mark.usefixtures("no_settings")
def test_an_application_is_told_by_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Settings()` and its arguments raise Millpond's own error, not pydantic's."""
    with pytest.raises(SettingsError, match=r"^drain_seconds: 'soon' cannot be used: write a duration"):
        Settings(drain_seconds="soon")
    with pytest.raises(
        SettingsError, match=r"^drain_second: there is no such setting: did you mean drain_seconds"
    ):
        Settings(drain_second=3)  # type: ignore[call-arg]
    monkeypatch.setenv("MILLPOND_DRAIN_SECONDS", "soon")
    with pytest.raises(SettingsError, match=r"^MILLPOND_DRAIN_SECONDS: 'soon' cannot be used"):
        Settings()


RIGHT: list[tuple[dict[str, str], str, object]] = [
    ({"MILLPOND_POOLS__EMAIL__CONCURRENCY": "7"}, "table.pools.email.concurrency", 7),
    ({"MILLPOND_TABLE__POOLS__EMAIL__CONCURRENCY": "7"}, "table.pools.email.concurrency", 7),
    ({"MILLPOND_POOLS": '{"email": {"concurrency": 7}}'}, "table.pools.email.concurrency", 7),
    ({"MILLPOND_POOLS__EMAIL": "concurrency=7,prefetch=2"}, "table.pools.email.prefetch", 2),
    ({"MILLPOND_POOLS__X__QUEUES": "email,files"}, "table.pools.x.queues", ("email", "files")),
    ({"MILLPOND_QUEUES__EMAIL__RATE": "50/s"}, "table.queues.email.rate", 50.0),
    ({"MILLPOND_QUEUES__EMAIL__BOUND": "30s"}, "table.queues.email.bound", "30s"),
    ({"MILLPOND_KINDS": "a, b"}, "kinds", ("a", "b")),
    ({"MILLPOND_KINDS": '["a", "b"]'}, "kinds", ("a", "b")),
    ({"MILLPOND_KINDS": "['a', 'b']"}, "kinds", ("a", "b")),
    ({"MILLPOND_KINDS": ""}, "kinds", ()),
    ({"MILLPOND_SMTP__HOST": "::1"}, "smtp.host", "::1"),
    ({"MILLPOND_SMTP__HOST": "fe80::1%eth0"}, "smtp.host", "fe80::1%eth0"),
    ({"MILLPOND_SMTP__HOST": "mail_relay.local."}, "smtp.host", "mail_relay.local."),
    ({"MILLPOND_KEY_PREFIX": ""}, "key_prefix", ""),
    ({"MILLPOND_BROKER_URL": "redis://x\n"}, "broker_url", "redis://x"),
    ({"MILLPOND_DRAIN_SECONDS": "2m30s"}, "drain_seconds", 150.0),
    ({"MILLPOND_SMTP": "host=mail,port=587"}, "smtp.port", 587),
    ({"MILLPOND_SMTP": '{host = "mail", port = 587}'}, "smtp.port", 587),
    ({"MILLPOND_SMTP": '{"port": 587}', "MILLPOND_SMTP__HOST": "mail"}, "smtp.port", 587),
    ({"MILLPOND_SMTP": '{"port": 587}', "MILLPOND_SMTP__HOST": "mail"}, "smtp.host", "mail"),
    ({"MILLPOND_GATEWAY__TOKENS": f"shop:sha256:{'0' * 64}"}, "gateway.tokens.0.name", "shop"),
    ({"MILLPOND_SCHEDULE__A__EVERY": "1d", "MILLPOND_SCHEDULE__A__KIND": "x"}, "schedule.a.kind", "x"),
    ({"MILLPOND_SMTP_PORT": "tcp://10.0.0.1:25", "MILLPOND_SMTP_SERVICE_HOST": "10.0.0.1"}, "smtp.port", 25),
    ({"MILLPOND_TEST_BASE": "x", "MILLPOND_IMAGE": "y", "MILLPOND_DEBUG": "0"}, "prefetch", 16),
]  # fmt: skip


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize(("variables", "path", "value"), RIGHT, ids=str)
def test_variables_are_written_as_a_person_would(
    variables: dict[str, str], path: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable may hold lists, tables, tokens and pools; variables of other programs are left alone."""
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    found: object = Settings()
    for part in path.split("."):
        if isinstance(found, dict):
            found = found[part]
        elif isinstance(found, tuple):
            found = found[int(part)]
        else:
            found = getattr(found, part)
    assert found == value


@pytest.mark.usefixtures("no_settings")
def test_logins_of_flower_are_written_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's logins are written as `admin:secret`, alone or several."""
    monkeypatch.setenv("MILLPOND_FLOWER_BASIC_AUTH", "admin:secret,bob:pw")
    assert [login.get_secret_value() for login in Settings().flower_basic_auth] == ["admin:secret", "bob:pw"]


@pytest.mark.parametrize("variable", ["SHOP_ORDERS", "SHOP.ORDERS"])
def test_a_variable_sets_a_queue_whose_name_has_a_dot(
    variable: str, no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell can export no dot, so `_` stands for it; with the name as written, the name counts."""
    (no_settings / "millpond.toml").write_text("[queues.'shop.orders']\nrate = '50/s'\n")
    monkeypatch.setenv(f"MILLPOND_QUEUES__{variable}__BOUND", "7")
    queues = Settings().table.queues
    assert (queues["shop.orders"].rate, queues["shop.orders"].bound) == (50, 7)
    assert "shop_orders" not in queues
    (no_settings / "millpond.toml").write_text("[queues.'shop.orders']\n[queues.'shop_orders']\n")
    queues = Settings().table.queues
    assert [name for name in ("shop.orders", "shop_orders") if queues[name].bound == 7] == [variable.lower()]


def test_the_variable_that_is_meant_exists_for_a_name_with_a_dot(
    no_settings: Path, monkeypatch: pytest.MonkeyPatch, failed: Failed
) -> None:
    """The proposal for a misspelt variable is one that sets the queue; it had a level too many."""
    (no_settings / "millpond.toml").write_text("[queues.'shop.orders']\nrate = '50/s'\n")
    monkeypatch.setenv("MILLPOND_QUEUES__SHOP_ORDERS__BOUNDD", "7")
    assert "did you mean MILLPOND_QUEUES__SHOP_ORDERS__BOUND?" in failed(["status"], 2)


def test_the_environment_stands_above_the_file(no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One field of a table comes from a variable, the others from the file; arguments stand above both."""
    (no_settings / "millpond.toml").write_text(
        "[smtp]\nhost = 'file'\nport = 26\n[queues.email]\nrate = '50/s'\n"
    )
    monkeypatch.setenv("MILLPOND_SMTP__HOST", "variable")
    found = Settings()
    assert (found.smtp.host, found.smtp.port, found.table.queues["email"].rate) == ("variable", 26, 50)
    assert Settings(smtp={"port": 27}).smtp.port == 27  # type: ignore[arg-type]


ODD = (
    'true|3|-1|0|2.5|""|"x"|"a b,c=d"|[]|[1]|[[1]]|{}|{ a = 1 }|nan|inf|1979-05-27|07:32:00|"\\u0000"|'
    + "9" * 30
).split("|")


@pytest.mark.parametrize("setting", list(list_settings(Settings)), ids=lambda setting: setting.name)
def test_no_value_of_any_setting_meets_other_words(
    setting: Setting, no_settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every value in the file or in a variable is read, or refused in one line that names its place."""
    keys = [*setting.name.replace("NAME", "email").split(".")]
    for odd in ODD:
        value = odd
        if setting.list_path:
            value, path = f"[{{ {keys[-1]} = {odd} }}]", ".".join(keys[:-1])
        else:
            path = ".".join(keys)
        (no_settings / "millpond.toml").write_text(f"{path} = {value}\n")
        must_be_read_or_refused("millpond.toml")
        (no_settings / "millpond.toml").unlink()
        variable = setting.variable.replace("NAME", "EMAIL")
        for text in {value, value.strip('"')} - {'"\\u0000"'}:
            monkeypatch.setenv(variable, text)
            must_be_read_or_refused(variable)
        monkeypatch.delenv(variable)


def must_be_read_or_refused(place: str) -> None:
    """Read the settings; an error must be one line that names the place."""
    try:
        Settings()
    except SettingsError as error:
        line = str(error)
        assert place in line
        assert "\n" not in line
        assert not NEVER.search(line)

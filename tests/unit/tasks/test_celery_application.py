"""The broker URL of a user's Celery application, with its TLS options."""

import sys
from pathlib import Path

import pytest
from celery import Celery

from millpond.tasks.application_broker import ApplicationBroker, ask_application
from millpond.tasks.celery_application import broker_url, load_app
from millpond.tasks.errors import SettingsError


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("redis://h/0", "redis://h/0?ssl=true&ssl_ca_certs=ca.pem"),
        ("redis://:ssl_word@h/0", "redis://:ssl_word@h/0?ssl=true&ssl_ca_certs=ca.pem"),
        ("rediss://h/0?ssl_cert_reqs=none", "rediss://h/0?ssl_cert_reqs=none"),
    ],
)
def test_a_url_gets_the_tls_options_of_the_application_unless_it_has_its_own(
    setting: str, expected: str
) -> None:
    """A URL gets the TLS options of the application, even if its password looks like such an option."""
    app = Celery(broker=setting, set_as_current=False)
    app.conf.broker_use_ssl = {"ssl_ca_certs": "ca.pem"}
    assert broker_url(app) == expected


@pytest.mark.parametrize(
    ("app_name", "reason"),
    [
        ("orchard.nope", "'orchard.nope', and no module has this name"),
        ("orchard.nope:app", "cannot be loaded: ModuleNotFoundError: No module named 'orchard.nope'"),
        ("orchard.keyed", "'orchard.keyed', which cannot be loaded: KeyError: 'NO_SUCH'"),
        ("orchard.keyed:app", "'orchard.keyed:app', which cannot be loaded: KeyError: 'NO_SUCH'"),
        ("orchard.unset", "cannot be loaded: AttributeError: 'dict' object has no attribute 'host'"),
        ("orchard.unset:app", "cannot be loaded: AttributeError: 'dict' object has no attribute 'host'"),
        (
            "orchard.plain",
            "is no Celery application: name the variable that holds it, as in orchard.plain:app (the module",
        ),
        ("orchard.plain", "orchard.plain:app (the module was read from {folder}/orchard/plain.py)"),
        ("orchard.plain:app", "is no Celery application: name the variable that holds it"),
        ("orchard.plain:greeting", "is no Celery application: name the variable that holds it"),
    ],
)
def test_the_reason_why_an_application_cannot_be_loaded(
    app_name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that is missing or raises is named as that, not as a name without a variable."""
    (tmp_path / "orchard").mkdir()
    for module, text in {
        "__init__": "",
        "keyed": "{}['NO_SUCH']",
        "unset": "{}.host",
        "plain": "greeting = 'hello'",
    }.items():
        (tmp_path / "orchard" / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    for loaded in [name for name in sys.modules if name.partition(".")[0] == "orchard"]:
        monkeypatch.delitem(sys.modules, loaded)
    with pytest.raises(SettingsError) as refused:
        load_app(app_name)
    assert reason.replace("{folder}", str(tmp_path)) in str(refused.value)


@pytest.mark.parametrize("app_name", [":app", ".shop", ""])
def test_a_name_without_a_module_is_refused_in_one_line(app_name: str) -> None:
    """The error for a name without a module shows the right form."""
    with pytest.raises(SettingsError, match="app names '', which is no module: write its whole name"):
        load_app(app_name)


@pytest.mark.parametrize(
    "more",
    [
        "import atexit; atexit.register(print, 'bye, world')",
        "import threading; threading.Thread(target=threading.Event().wait).start()",
        "import sys; sys.stdout.buffer.write(b'\\xff\\xfe')",
    ],
)
def test_the_broker_of_an_application_with_habits_is_found(
    more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may print at its exit, have a thread that does not end, or write bytes that are no text."""
    text = f"from celery import Celery\n\napp = Celery('habits', broker='redis://one/0')\n{more}\n"
    (tmp_path / "habits.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert ask_application("habits:app") == ApplicationBroker("habits:app", "redis://one/0")


@pytest.mark.parametrize("code", [0, 3])
def test_an_application_that_ends_the_program_is_refused(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sys.exit` at its import is one line that names it."""
    (tmp_path / "ending.py").write_text(f"import sys\n\nsys.exit({code})\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"ending:app ended its program at its import"):
        ask_application("ending:app")

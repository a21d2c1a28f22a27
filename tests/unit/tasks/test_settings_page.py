"""Every setting is documented on one page, which is made from the models."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.tasks.configuration.catalog import list_settings, to_toml
from millpond.tasks.configuration.model_fields import describe_values
from millpond.tasks.configuration.settings_page import settings_page
from millpond.tasks.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "tasks" / "SETTINGS.md"

SETTINGS = list(list_settings(Settings))


def test_the_page_is_not_stale() -> None:
    """tasks/SETTINGS.md is the output of `millpond config --markdown` for the present settings."""
    assert PAGE.read_text() == settings_page(Settings), "run: millpond config --markdown > tasks/SETTINGS.md"


def test_the_readme_links_to_it() -> None:
    """The README links to it."""
    assert "(tasks/SETTINGS.md)" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_setting_says_what_it_is(setting: object) -> None:
    """Every setting has a sentence, a description of its values, and its variable on the page."""
    found = next(each for each in SETTINGS if each is setting)
    description = found.field.description or ""
    assert description.endswith(".")
    assert len(description) > 8
    assert describe_values(found.field)
    assert f"`{found.variable}`" in PAGE.read_text()


def test_none_is_left_out() -> None:
    """Every setting of the models is listed once, with those of pools, queues and schedules."""
    names = [setting.name for setting in SETTINGS]
    assert len(names) == len(set(names)) > 65
    assert {"broker_url", "smtp.host", "pools.NAME.concurrency", "queues.NAME.rate", "schedule.NAME.cron"} < {
        *names
    }


def test_the_page_is_the_same_whatever_is_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page shows defaults, even if a setting is wrong, and does not depend on the machine."""
    monkeypatch.setenv("MILLPOND_DRAIN_SECONDS", "soon")
    monkeypatch.setattr("os.cpu_count", lambda: 17)
    assert millpond.main(["config", "--markdown"]) == 0
    assert capsys.readouterr().out == PAGE.read_text()


@pytest.mark.parametrize(
    "value",
    [
        "",
        'a "quoted" word',
        "back\\slash",
        "\x00\x1b\x7f",
        "größer 日本",
        7,
        0.5,
        True,
        [1, "a"],
        {"a b": {"c": [1]}},
    ],
    ids=repr,
)
def test_a_value_is_written_as_toml_reads_it(value: Any) -> None:
    """`millpond config` is a millpond.toml."""
    assert tomllib.loads(f"x = {to_toml(value)}") == {"x": value}

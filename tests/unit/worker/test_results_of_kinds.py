"""A module of `kinds` whose Celery application has a result backend: its workers store no results."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from millpond.tasks.module_loading import import_modules
from millpond.worker.celery.stock_tasks import backends_without_results

APPLICATION = """
from celery import Celery
app = Celery("till", backend={backend!r}, set_as_current=False)
other_name = app
app.conf.task_ignore_result = {ignore!r}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder in which modules are found."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "backend", "ignore", "named"),
    [
        ("till_with_results", "redis://localhost/1", False, True),
        ("till_that_ignores", "redis://localhost/1", True, False),
        ("till_without", None, False, False),
        ("till_disabled", "disabled://", False, False),
    ],
)
def test_a_result_backend_is_named_with_the_remedy(
    folder: Path, name: str, backend: str | None, ignore: bool, named: bool
) -> None:
    """Results that a caller waits for would never come."""
    (folder / f"{name}.py").write_text(APPLICATION.format(backend=backend, ignore=ignore))
    import_modules([name])
    lines = list(backends_without_results([name]))
    assert len(lines) == named
    assert all(f"--app {name}:app" in line for line in lines)


def test_settings_that_cannot_be_loaded_are_left_to_the_application(folder: Path) -> None:
    """The check of a start does not end it: a worker of kinds does not need that application's settings."""
    (folder / "till_broken.py").write_text(
        "from celery import Celery\napp = Celery('till', set_as_current=False)\n"
        "app.config_from_object('no_such_settings_here')\n"
    )
    import_modules(["till_broken"])
    assert list(backends_without_results(["till_broken"])) == []


def test_a_lazy_object_of_a_module_is_not_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Django's settings, which raise an error where they are not configured."""

    class Lazy:
        @property
        def __class__(self) -> type:  # type: ignore[override]
            raise RuntimeError("not configured")

    module = ModuleType("till_lazy")
    module.settings = Lazy()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "till_lazy", module)
    assert list(backends_without_results(["till_lazy"])) == []

"""Celery's features in three ways: a real worker does as every cell of worker/CELERY.md states."""

import json
import sys
from pathlib import Path

import pytest

import millpond
from millpond.worker.cli.worker import OPTIONS_OF_CELERY, SHORT_OPTIONS_OF_CELERY
from tests.applications.differences import DIFFERENCES
from tests.applications.page import PAGE, features, page
from tests.applications.ways import ROOT, WAYS, worker
from tests.conftest import Eventually

#: Five to ten minutes each; of the three ways .ci/run tries that which is Millpond's own.
slow = [pytest.mark.slow, pytest.mark.timeout(2400)]
evidence = [*slow, pytest.mark.evidence]
FEATURES = ROOT / "tests" / "applications" / "features"
QUEUES = ("celery", "second", "media", "everybody")


def test_the_page_is_what_is_tried() -> None:
    """The page names every feature and difference: python -m tests.applications.page."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize(("option", "instead"), (OPTIONS_OF_CELERY | SHORT_OPTIONS_OF_CELERY).items())
def test_an_option_of_stock_is_refused_in_words(
    option: str, instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option of `celery worker` that has no place here ends the command, which names its replacement."""
    assert millpond.main(["worker", "--app", "proj", option, "default"]) == 2
    assert f"no option is named '{option}': use {instead}. See:" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("way", [pytest.param(way, marks=slow if way == "app" else evidence) for way in WAYS])
def test_every_feature_does_what_the_page_says(
    way: str, url: str, tmp_path: Path, eventually: Eventually
) -> None:
    """Every feature has stock's result, or differs in value and words as the page states."""
    with worker(way, "featured", url, tmp_path, eventually, paths=[FEATURES], queues=QUEUES) as running:
        said = running.run(sys.executable, "-m", "tests.applications.features", seconds=2000)
    found = json.loads(said.splitlines()[-1])
    expected = {
        name: DIFFERENCES[name, way].gives if (name, way) in DIFFERENCES else promised
        for name, (_section, promised) in features().items()
    }
    wrong = {
        name: (found.get(name), expected[name]) for name in expected if found.get(name) != expected[name]
    }
    assert wrong == {}, f"{wrong}\n{running.log[-3000:]}"

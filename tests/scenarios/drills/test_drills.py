"""Each fault has its signs: an alert that fires, a health answer that changes, a text on a page."""

import shutil
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from tests.scenarios.drills.disk import NoDisk
from tests.scenarios.drills.running import run
from tests.scenarios.drills.world import World, world

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: The drills, by a part of their names: `drills.py` imports kinds of the tests.
NAMES = (
    "Redis gone",
    "disk full",
    "worker frozen",
    "consumer stuck",
    "poison",
    "leader killed",
    "all schedulers killed",
)


@pytest.fixture(scope="module")
def everything(
    kinds_path: None, tmp_path_factory: pytest.TempPathFactory, missing: Callable[[str], NoReturn]
) -> Iterator[World]:
    """Run the whole set-up, with alerts that wait a twentieth of their shipped delays."""
    program = shutil.which("prometheus") or missing("prometheus")
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("drills")
        patch.setenv("MILLPOND_SCRATCH", str(folder))
        try:
            with world(folder, scale=20, program=program) as made:
                yield made
        except NoDisk as why:
            missing(f"a mount namespace ({why})")


@pytest.mark.parametrize("name", NAMES)
def test_a_fault_is_seen_until_it_is_mended(everything: World, name: str) -> None:
    """Every expected alert, answer and word comes, and all is well once the fault is mended."""
    from tests.scenarios.drills.drills import DRILLS

    [drill] = [drill for drill in DRILLS if name in drill.name]
    seen = run(drill, everything)
    assert seen.missing == [], seen
    assert seen.well_seconds is not None


def test_every_drill_is_run(everything: World) -> None:
    """No drill is left out of the names above."""
    from tests.scenarios.drills.drills import DRILLS

    assert len(DRILLS) == len(NAMES)

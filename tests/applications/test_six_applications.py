"""Six applications of Celery's users, unchanged but for one setting: each gives the same in three ways."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.applications.application import APPLICATIONS, Application
from tests.applications.ways import WAYS, worker
from tests.conftest import Eventually
from tests.harness.databases import fresh_database

slow = [pytest.mark.slow, pytest.mark.timeout(600)]
evidence = [*slow, pytest.mark.evidence]


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=evidence if way == "stock" else slow) for way in WAYS]
)
@pytest.mark.parametrize("application", APPLICATIONS, ids=lambda each: each.folder)
def test_an_application_gives_the_same_in_all_ways(
    application: Application, way: str, server: Any, tmp_path: Path, eventually: Eventually
) -> None:
    """An application's own checks have the expected results on stock, on our transport, and under `--app`."""
    for module in application.needs:
        pytest.importorskip(module)
    with worker(
        way,
        application.app,
        fresh_database(server),
        tmp_path,
        eventually,
        paths=[application.path],
        queues=application.queues,
        more=application.prepare(tmp_path),
    ) as running:
        said = running.run(sys.executable, str(application.path / "checks.py"))
        assert json.loads(said.splitlines()[-1]) == application.promised, running.log[-3000:]

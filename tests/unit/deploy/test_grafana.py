"""The dashboard is one that Grafana can read."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

DASHBOARD = json.loads((Path(__file__).parents[3] / "deploy/grafana/millpond.json").read_text())
COLUMNS = 24


def lost(given: Any, kept: Any, path: str = "") -> list[str]:
    """Name the parts of a value that another lacks."""
    match given, kept:
        case dict(), dict():
            return [fault for name in given for fault in lost(given[name], kept.get(name), f"{path}/{name}")]
        case list(), list():
            pairs = enumerate(zip(given, kept, strict=True))
            return [fault for n, (one, other) in pairs for fault in lost(one, other, f"{path}/{n}")]
        case _:
            return [] if given == kept else [path]


def test_grafanas_own_models_know_all_of_it() -> None:
    """Read and written again by the models that Grafana publishes, nothing is dropped or changed."""
    register_default_plugins()
    read = Dashboard.from_json(DASHBOARD)
    assert lost(DASHBOARD, json.loads(JSONEncoder().encode(read))) == []
    unknown = {**DASHBOARD, "paneels": []}
    assert lost(unknown, json.loads(JSONEncoder().encode(Dashboard.from_json(unknown)))) == ["/paneels"]


def test_its_panels_fill_the_screen_and_cover_no_other() -> None:
    """Every cell of its grid belongs to at most one panel, none lies outside, and each panel has its id."""
    cells: Counter[tuple[int, int]] = Counter()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells.update(
            (x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])
        )
    assert max(cells.values()) == 1
    assert {x for x, _ in cells} == set(range(COLUMNS))
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])

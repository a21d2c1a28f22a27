"""The page worker/CELERY.md: the features, and the ways in which they work. `python -m
tests.applications.page` writes it.

The slow tests of this folder compare every cell with a real worker's behaviour.
"""

import json
import subprocess
import sys
from itertools import groupby
from typing import Any

from millpond.worker.cli.worker import OPTIONS_OF_CELERY
from tests.applications.application import APPLICATIONS
from tests.applications.differences import DIFFERENCES
from tests.applications.ways import ROOT, WAYS, environment

PAGE = ROOT / "worker" / "CELERY.md"

HEAD = """# What holds of Celery, three ways

Written by `python -m tests.applications.page`; `make test-slow` tries every line against a real worker.

| way | broker URL | worker |
|---|---|---|
| stock | `redis://…` | `celery -A proj worker` |
| transport | `millpond://…` | `celery -A proj worker` |
| app | `redis://…` | `millpond worker --app proj POOL` |

*works*: what using it gives is what stock gives, to the letter. *differs*: how. *refused*: in these words.
Threads keep no time limit, on stock and here; `millpond worker` names those that its threads do not keep.
{counts}"""


def features() -> dict[str, list[Any]]:
    """Return every feature, with its section and stock's result."""
    env = environment("stock", "memory://", [ROOT / "tests" / "applications" / "features"])
    env["APP_RESULTS"] = "redis://localhost"
    command = [sys.executable, "-m", "tests.applications.features", "--list"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return found


def cell(feature: str, way: str) -> str:
    """Return the page's text for a feature in a way."""
    return str(DIFFERENCES.get((feature, way), "works"))


def page() -> str:
    """Return the page."""
    known = features()
    cells = [cell(name, way) for name in known for way in WAYS[1:]]
    verdicts = {
        verdict: sum(each.startswith(verdict) for each in cells)
        for verdict in ("works", "differs", "refused")
    }
    checks = sum(len(each.promised) for each in APPLICATIONS)
    counted = ", ".join(f"{number} {verdict}" for verdict, number in verdicts.items())
    counts = (
        f"{len(known)} features, each on the transport and under `--app`: {counted}. Six applications, "
        f"{checks} checks, all three ways alike.\n"
    )
    lines = [HEAD.format(counts=counts)]
    for section, names in groupby(known, key=lambda name: str(known[name][0])):
        lines += [f"## {section}\n", "| feature | transport | app |\n|---|---|---|"]
        lines += [f"| {name} | {cell(name, 'transport')} | {cell(name, 'app')} |" for name in names]
        lines.append("")
    lines += ["## Options of `celery worker`\n", "| option | `millpond worker` |\n|---|---|"]
    lines += [f"| `{option}` | refused: {instead} |" for option, instead in OPTIONS_OF_CELERY.items()]
    lines.append("")
    lines.append(
        "## Whole applications\n\nEach as it is, with a broker URL; its own checks give the same three times "
        "(tests/applications/apps).\n"
    )
    for each in APPLICATIONS:
        lines.append(f"- **{each.title}**: {'; '.join(each.promised)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())

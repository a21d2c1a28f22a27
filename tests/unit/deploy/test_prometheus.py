"""Rules, alerts and dashboard speak of metrics that there are; each alert fires on its fault alone."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from millpond.broker.errors import BrokerAway
from millpond.broker.inspect.depth import Depth
from millpond.broker.limits import Limits
from millpond.broker.schedules import Schedule
from millpond.broker.stats.heartbeats import Heartbeat, Totals
from millpond.broker.stats.histogram import NAMES, Histogram
from millpond.monitor.diagnosis import Diagnosis
from millpond.monitor.metrics import metrics_text
from millpond.monitor.snapshot import PoolView, QueueView, Snapshot
from millpond.tasks.pools import PoolsTable
from tests.harness.run_to_end import run_to_end

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = ("millpond.rules.yml", "millpond.alerts.yml")


def overview() -> Snapshot:
    """Return a queue and a pool on which something of everything happened."""
    depth = Depth("email", 3, 1, 2, 4, 1, 1.5, {"published": 9, "settled": 5})
    queue = QueueView(depth, Limits(bound=10), ("email",))
    report = Heartbeat("email.1@here", "email", "here", 1, "threads", 8, 2, 2, 16, False, 60.0, ("email",))
    seen = Histogram(tuple(int(name == "0.05") for name in NAMES), 0.04)
    done = Totals({("failed", "email.send"): 2}, {"email.send": seen}, {"email.send": seen}, 4.0, 8.0, 7)
    pool = PoolView("email", PoolsTable().pools["email"], (queue,), (report,), done)
    return Snapshot(0, (pool,), (queue,), (Schedule("nightly", fired=5, missed=2),))


def test_what_is_asked_for_is_exposed() -> None:
    """Every metric that a rule, an alert or a panel names is one that Flower exposes."""
    text = metrics_text(overview(), [Diagnosis("email", "lock", "it waits", name="SQLite")]).decode()
    exposed = set(re.findall(r"^(millpond_\w+)[{ ]", text, re.MULTILINE))
    panels = json.loads((DEPLOY / "grafana/millpond.json").read_text())
    asked = "".join(t["expr"] for panel in panels["panels"] for t in panel.get("targets", ()))
    asked += "".join((DEPLOY / "prometheus" / name).read_text() for name in RULES)
    named = set(re.findall(r"\bmillpond_\w+", asked))
    assert named <= exposed
    assert len(named) > 20


def test_the_figures_are_exposed_by_the_conventions() -> None:
    """Counters end in _total, durations are seconds, buckets add up, and an absent broker says so."""
    text = metrics_text(overview()).decode()
    assert 'millpond_queue_ready{queue="email"} 3.0' in text
    assert 'millpond_queue_published_total{queue="email"} 9.0' in text
    assert 'millpond_queue_oldest_age_seconds{queue="email"} 1.5' in text
    assert 'millpond_pool_slots_busy{pool="email"} 2.0' in text
    assert 'millpond_schedule_missed_total{schedule="nightly"} 2.0' in text
    assert "millpond_scheduler_up 0.0" in text
    assert "millpond_broker_writable 1.0" in text
    for bound, count in (("0.02", 0), ("0.05", 1), ("1000.0", 1), ("+Inf", 1)):
        assert re.search(rf'wait_seconds_bucket{{[^}}]*le="{re.escape(bound)}"[^}}]*}} {count}\.0', text), (
            bound
        )
    assert "millpond_broker_up 0.0" in metrics_text(BrokerAway("away")).decode()


def test_each_alert_fires_on_its_fault_and_not_before(missing: Callable[[str], NoReturn]) -> None:
    """Prometheus' own tool runs the rules against made-up hours."""
    promtool = shutil.which("promtool") or missing("promtool, of Debian's package prometheus,")
    done = run_to_end([promtool, "test", "rules", "millpond.test.yml"], cwd=DEPLOY / "prometheus")
    assert done.returncode == 0, done.stdout + done.stderr
    alerts = re.findall(r"alert: (\w+)", (DEPLOY / "prometheus" / RULES[1]).read_text())
    tests = (DEPLOY / "prometheus/millpond.test.yml").read_text()
    assert [name for name in alerts if tests.count(f"alertname: {name}") < 2] == []

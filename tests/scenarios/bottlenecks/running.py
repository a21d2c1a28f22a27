"""Run a bottleneck: a real pool, its verdict every two seconds, and the truth by doubling and batching."""

import os
import random
import re
import subprocess
import sys
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil

from millpond.broker import limits, server
from millpond.broker.connection import Store, connect
from millpond.broker.inspect.depth import read_depth
from millpond.broker.keys import probe_cost_key, probe_lock_key
from millpond.broker.outgoing import Outgoing, compose
from millpond.broker.publish import publish
from millpond.monitor.diagnosis import Diagnosis, diagnose_all
from millpond.monitor.snapshot import read_snapshot
from millpond.tasks.settings import Settings, child_environment
from millpond.worker.local.valkey import run_server
from millpond.worker.supervise.process_numbers import ProcessNumbers
from tests.harness.background import repeating
from tests.harness.one_worker import OneWorker, settings_for, workers
from tests.harness.tcp_proxy import proxy
from tests.scenarios.bottlenecks.case import Case, Scene
from tests.scenarios.bottlenecks.results import Seen

#: The verdict has to be right so many seconds after the onset, and the truth is measured for so many.
WITHIN_SECONDS, TRUTH_SECONDS = 60.0, 6.0
#: A turn of few or many slots is this long, once the surplus has ended, which takes at most so long.
TURN_SECONDS, IDLE_SECONDS = 3.0, 10.0
#: Messages that are sent at once: they may be large.
MOST_AT_ONCE = 50
#: Tasks a second of a pool that keeps up.
HEALTHY_RATE = 50


class Feed:
    """Keeps a queue filled as a case wants it."""

    def __init__(self, store: Store, case: Case, fields: dict[str, Any]) -> None:
        self.store, self._case, self._fields = store, case, fields
        self._burst_at = 0.0
        self.share = case.beside[2] if case.beside else 0.0

    def fill(self) -> None:
        """Fill the backlog up, or send the next burst if it is due."""
        if self._case.steady:
            self.steadily(2)
            return
        if self._case.burst:
            if monotonic() >= self._burst_at:
                self._burst_at = monotonic() + 10
                self.send(self._case.burst)
            return
        backlog = self._case.backlog
        lacking = backlog - read_depth(self.store, "default").ready
        if lacking > backlog // 10:
            self.send(lacking)

    def steadily(self, seconds: float) -> None:
        """Send few enough for the pool to keep up, for so long."""
        begun, sent = monotonic(), 0
        while monotonic() < begun + seconds:
            due = int((monotonic() - begun) * HEALTHY_RATE)
            self.send(due - sent)
            sent = due
            sleep(0.05)

    def send(self, count: int) -> None:
        """Send messages of the case's kinds, mixed."""
        now_ms = server.server_time_ms(self.store)
        for part in range(0, count, MOST_AT_ONCE):
            messages = [self._message(now_ms) for _ in range(min(MOST_AT_ONCE, count - part))]
            publish(self.store, messages, policy="exempt")

    def _message(self, now_ms: int) -> Outgoing:
        beside = self._case.beside
        if beside is not None and random.random() < self.share:
            kind, fields = beside[0], {**self._fields, **beside[1]} if self._is_same(beside[0]) else beside[1]
        else:
            kind, fields = self._case.kind, self._fields
        return compose(kind, dict(fields), queue="default", sent_at_ms=now_ms)

    def _is_same(self, kind: str) -> bool:
        return kind == self._case.kind


def run(case: Case, folder: Path, *, truth: bool = True) -> Seen:
    """Run one case on a server of its own."""
    seen = Seen(case.label, case.right, case.grows)
    with ExitStack() as stack:
        own = stack.enter_context(run_server(folder / "server"))
        given = stack.enter_context(case.around(folder))
        store = connect(own.url)
        stack.callback(store.close)
        settings = _settings(case, _delayed(own.url, case, stack))
        fields = {**case.fields, **case.given(given)}
        feed = Feed(store, case, fields)
        running = stack.enter_context(workers(settings, folder, count=case.processes))
        if case.healthy_seconds:
            feed.steadily(case.healthy_seconds)
            feed.share = case.beside_after
        feed.fill()
        if case.onset is not None:
            case.onset(Scene(given, store, running, folder))
        measuring = _second_slot(settings, stack) if case.second_slot else None
        _watch(case, seen, store, settings, feed, case.named(given))
        if measuring is not None:
            measuring.wait(300)
        if truth:
            _probe_no_more(store)
        if truth and case.doubled:
            _double(case, seen, feed, stack, settings, folder, running)
        if truth and case.batched:
            _batch(case, seen, store, fields)
        store.client.delete("default")
    return seen


def _second_slot(settings: Settings, stack: ExitStack) -> "subprocess.Popen[bytes]":
    """Measure the pool of one slot by hand, as a person would, while the verdict is watched."""
    numbers = stack.enter_context(ProcessNumbers(settings.broker_url or "", settings.key_prefix))
    next(
        numbers.lock_free_numbers("default")
    )  # the number of the worker that runs, as its supervisor would hold it
    asked = [sys.executable, "-P", "-m", "millpond", "why", "default", "--probe", "--second-slot"]
    measuring = subprocess.Popen(asked, env=child_environment(settings), stdout=subprocess.DEVNULL)
    stack.callback(measuring.terminate)
    return measuring


def _watch(case: Case, seen: Seen, store: Store, settings: Settings, feed: Feed, name: str) -> None:
    begun = monotonic()
    while monotonic() - begun < WITHIN_SECONDS:
        feed.fill()
        [verdict] = [
            each
            for each in diagnose_all(store, read_snapshot(store, settings.table))
            if each.pool == "default"
        ]
        _note(seen, verdict)
        if verdict.state in case.right:
            seen.right_after = monotonic() - begun
            seen.named = name in verdict.name
            if seen.named:
                return
        sleep(2)


def _note(seen: Seen, verdict: Diagnosis) -> None:
    seen.why, seen.slots, seen.slots_wanted = verdict.why, verdict.slots, verdict.slots_wanted
    seen.predicted = verdict.predicted_rate if verdict.state == "workers" else None
    if not seen.said or seen.said[-1] != verdict.state:
        seen.said.append(verdict.state)


def _probe_no_more(store: Store) -> None:
    """Spend the budget of probes and wait for the end of a running one: probes would disturb measurements."""
    store.client.set(probe_cost_key("default", store.prefix), "1e9")
    until = monotonic() + 40
    while store.client.exists(probe_lock_key("default", store.prefix)) and monotonic() < until:
        sleep(0.2)


def _double(
    case: Case,
    seen: Seen,
    feed: Feed,
    stack: ExitStack,
    settings: Settings,
    folder: Path,
    running: list[OneWorker],
) -> None:
    """Measure the throughput with the slots that were advised, then of twice as many beside that of now."""
    slots = case.slots * case.processes
    if case.inside:
        for worker in running:
            worker.stop()
        slots *= 2
    added = 0
    if seen.predicted is not None and seen.slots_wanted and slots < seen.slots_wanted < 2 * slots:
        added = seen.slots_wanted - slots
        _more(case, settings, added, case.processes + 1, stack, folder)
        seen.came = _rate(feed.store, feed)
    _more(case, settings, slots - added, case.processes + 2, stack, folder)
    slots = case.slots * case.processes
    _compare(seen, feed, slots)
    if seen.slots_wanted == 2 * slots:
        seen.came = seen.after
    seen.gain = seen.after / seen.before if seen.before and seen.after else 1.0


def _compare(seen: Seen, feed: Feed, slots: int) -> None:
    """Measure the throughput with so many slots and with all of them, twice as many, in turns.

    Half of the slots stand idle by an in-flight limit; other load on the machine meets both alike. A queue
    with a limit of its own keeps it: both are measured under the smaller one.
    """
    own = limits.read_limits(feed.store, "default").in_flight or 2 * slots
    rates: dict[int, list[float]] = {slots: [], 2 * slots: []}
    for most in (slots, 2 * slots, 2 * slots, slots, slots, 2 * slots):
        limits.change_limits(feed.store, "default", in_flight=min(most, own))
        until = monotonic() + IDLE_SECONDS
        while read_depth(feed.store, "default").in_flight > most and monotonic() < until:
            sleep(0.1)
        sleep(0.5)
        rates[most].append(_rate(feed.store, feed, TURN_SECONDS))
    limits.change_limits(feed.store, "default", in_flight=None)
    seen.before, seen.after = (sum(found) / len(found) for found in rates.values())


def _keep_nice() -> None:
    """Give the programs started so far this one's niceness: Linux may group them by session, each alike."""
    for each in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(OSError, psutil.Error):
            Path(f"/proc/{each.pid}/autogroup").write_text(str(os.nice(0)))


def kept_nice() -> AbstractContextManager[None]:
    """Give programs that are started this one's niceness, once a second, so that they are soon ready."""
    return repeating(_keep_nice, 1)


def _more(case: Case, settings: Settings, slots: int, number: int, stack: ExitStack, folder: Path) -> None:
    """Start one more process of so many slots."""
    table = replace_pool(settings, concurrency=slots)
    beside = folder / f"more-{number}"
    beside.mkdir()
    started = stack.enter_context(workers(table, beside, count=1, first=number))
    if case.of_workers and case.onset is not None:
        store = connect(settings.broker_url or "")
        case.onset(Scene(None, store, started, folder))
        store.close()
    sleep(2)


def _batch(case: Case, seen: Seen, store: Store, fields: dict[str, Any]) -> None:
    """Measure the throughput in tasks' worth of work when one task does the work of several."""
    store.client.delete("default")
    single = Feed(store, replace(case, beside=None), {**fields, **case.batched})
    single.fill()
    sleep(3)
    rate = _rate(store, single) * case.batched_items
    seen.batched_gain = rate / seen.after if seen.after else None


def replace_pool(settings: Settings, **changes: Any) -> Settings:
    """Return the settings with another pool."""
    pool = settings.table.pools["default"].model_copy(update=changes)
    table = settings.table.model_copy(update={"pools": {**settings.table.pools, "default": pool}})
    return settings.model_copy(update={"table": table})


def _rate(store: Store, feed: Feed, seconds: float = TRUTH_SECONDS) -> float:
    feed.fill()
    first, begun = _succeeded(store), monotonic()
    until = begun + seconds
    while monotonic() < until:
        sleep(0.5)
        feed.fill()
    return (_succeeded(store) - first) / (monotonic() - begun)


def _succeeded(store: Store) -> int:
    return read_depth(store, "default").counters.get("settled", 0)


def _delayed(url: str, case: Case, stack: ExitStack) -> str:
    """Return the URL of the broker, behind a proxy that delays its answers where the case wants it."""
    found = re.search(r":(\d+)/", url)
    if not case.broker_delay or found is None:
        return url
    between = stack.enter_context(proxy(int(found[1]), case.broker_delay / 2))
    return url.replace(f":{found[1]}/", f":{between.port}/")


def _settings(case: Case, url: str) -> Settings:
    pool = {
        "executor": case.executor,
        "concurrency": case.slots,
        "prefetch": case.slots,
        "processes": case.processes,
        **case.pool,
    }
    queue = {"bound": 1_000_000, **case.queue}
    kinds = ("bottleneck_kinds", "dependency_kinds", "everyday_kinds", "library_kinds", "unforeseen_kinds")
    return settings_for(url, pool=pool, queue=queue, kinds=kinds)

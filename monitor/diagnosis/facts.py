"""Gather the facts of each pool: windows of ten seconds and of a minute, usual times, measured elasticity."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from millpond.broker.connection import Store
from millpond.broker.stats import days, elasticity, probing, processors, window
from millpond.broker.stats.calls import CallFigures
from millpond.broker.stats.days import Entry
from millpond.broker.stats.elasticity import Elasticity
from millpond.broker.stats.window import KindFigures, Place, Window
from millpond.monitor.snapshot import PoolView, QueueView, Snapshot

#: The lengths of the newest window and of the smoothing one, seconds.
RECENT_SECONDS, MINUTE_SECONDS = 10.0, 60.0
#: A cause needs this many ends. If fewer runs ended in a minute, the window is extended to these seconds.
ENOUGH_ENDS, FEW_SECONDS = 30, 300.0

#: The mean of a window's service times counts from this many ends on.
MEAN_ENDS = 20

#: Usual service times come from windows older than these seconds, with at least this many ends of the kind.
SETTLED_SECONDS, USUAL_ENDS = 20.0, 5
#: With this many entries of the last days, the windows of the last minutes add nothing to the usual times.
SETTLED_ENTRIES = 12
#: The age of the oldest entry that is read: a day, and two hours for one that began before this time of day.
OLDEST_MS = 26 * 3_600_000


@dataclass(frozen=True)
class PoolFacts:
    """The facts about one pool that the rules read."""

    view: PoolView
    recent: Window = field(default_factory=Window)
    #: The last minute, or the last five minutes if few runs ended in one and the pool has work.
    minute: Window = field(default_factory=Window)
    #: The usual mean service time by kind, seconds.
    usual: Mapping[str, float] = field(default_factory=dict)
    elasticity: Elasticity | None = None
    #: The last elasticity that was measured with other slots.
    earlier_elasticity: Elasticity | None = None
    #: The time of the snapshot, ms by the server's clock; 0 if nothing depends on it.
    now_ms: int = 0
    #: The entries of the last days, oldest first.
    days: Sequence[Entry] = ()
    #: True while the pool's elasticity is being measured: part of its slots are idle.
    is_probed: bool = False
    #: The cost of these measurements in this hour, in seconds of the pool's rate.
    probe_seconds: float = 0.0

    @property
    def waiting_queues(self) -> list[QueueView]:
        """The queues that have ready messages."""
        return [queue for queue in self.view.queues if queue.depth.ready]

    @property
    def ready(self) -> int:
        """The number of ready messages."""
        return self.view.ready

    @property
    def rate(self) -> float:
        """The ends a second, in the newest window with ends."""
        for figures in (self.recent, self.minute):
            if figures.ended and figures.seconds:
                return figures.ended / figures.seconds
        return self.view.rate or 0.0

    @property
    def in_rate(self) -> float:
        """Messages a second that arrived in the last ten seconds."""
        return sum(queue.in_rate or 0.0 for queue in self.view.queues)

    @property
    def use(self) -> float:
        """The share of the slots' time that is in use, 0 to 1, in the newest window in which it is known."""
        for figures in (self.recent, self.minute):
            if figures.use is not None:
                return figures.use
        return self.view.utilisation or 0.0

    @property
    def mean_service_seconds(self) -> float | None:
        """The mean service time of the newest window with enough ends, seconds."""
        for figures in (self.recent, self.minute):
            if figures.ended >= MEAN_ENDS:
                return figures.service_seconds / figures.ended
        return self.minute.service_seconds / self.minute.ended if self.minute.ended else None

    @property
    def slowdown(self) -> float | None:
        """The service time as a multiple of the usual one of the same kinds.

        None if fewer than half of the runs are of kinds whose usual time is known.
        """
        multiple, compared = self._slowdown_against(self.usual)
        return multiple if compared >= self.newest_window.ended / 2 else None

    @property
    def newest_window(self) -> Window:
        """The last ten seconds if enough runs ended in them, else the last minute."""
        return self.recent if self.recent.ended >= MEAN_ENDS else self.minute

    def kind_mean_seconds(self, kind: str) -> float | None:
        """Return the mean service time of a kind in `newest_window`, seconds. None if no run of it ended."""
        return self._kind_figures(kind).mean_service_seconds

    def kind_time_share(self, kind: str) -> float:
        """Return a kind's share of the service time of all runs in `newest_window`, 0 to 1."""
        total = self.newest_window.service_seconds
        return self._kind_figures(kind).service_seconds / total if total else 0.0

    def kind_rate(self, kind: str) -> float:
        """Return how many runs of a kind ended per second in `newest_window`."""
        seconds = self.newest_window.seconds
        return self._kind_figures(kind).ended / seconds if seconds else 0.0

    def _kind_figures(self, kind: str) -> KindFigures:
        return self.newest_window.kinds.get(kind, KindFigures())

    @property
    def calls(self) -> Mapping[tuple[str, str], CallFigures]:
        """The calls of the last minute, by kind and peer."""
        return self.minute.calls

    @property
    def broker_seconds(self) -> float:
        """The seconds that the broker takes to reply to the worker processes, the median of them."""
        return median([report.broker_seconds for report in self.view.running] or [0.0])

    @property
    def headroom(self) -> float:
        """How many times the pool's rate can grow before the processors of its hosts are full."""
        return processors.compute_headroom(self.sampled_window, self.view.running)

    @property
    def has_free_processors(self) -> bool:
        """True if the pool's rate can grow by half before the processors of its hosts are full.

        False if its threads wait for the interpreter's lock much of the time. See `processors_are_free`.
        """
        return processors.processors_are_free(self.sampled_window, self.view.running)

    def slowdown_since(self, seconds: float, within_seconds: float) -> float | None:
        """Return the service time as a multiple of the earlier one of the same kinds.

        The earlier one was measured `seconds` ago, or at most `within_seconds` before or after that time.
        Return None if none was.
        """
        then = self.now_ms - seconds * 1000
        entries = [kinds for at, kinds in self.days if abs(at - then) <= within_seconds * 1000]
        return self._slowdown_against(usual_seconds([], entries))[0]

    def _slowdown_against(self, usual: Mapping[str, float]) -> tuple[float | None, int]:
        """Return the service time as a multiple of the usual one of the same kinds, and the runs compared.

        `usual` has the usual seconds of kinds. The multiple is None if no run was compared.
        """
        compared = [
            (figures, usual[kind])
            for kind, figures in self.newest_window.kinds.items()
            if figures.ended and kind in usual
        ]
        expected = sum(figures.ended * seconds for figures, seconds in compared)
        spent = sum(figures.service_seconds for figures, _ in compared)
        return spent / expected if expected else None, sum(figures.ended for figures, _ in compared)

    @property
    def places(self) -> Counter[Place]:
        """The microseconds of runs by place, in `sampled_window`."""
        return self.sampled_window.places

    @property
    def sampled_window(self) -> Window:
        """The newest window with samples of slots."""
        return self.recent if sum(self.recent.places.values()) else self.minute

    def category_time_share(self, *categories: str) -> float:
        """Return the share of the running time in `sampled_window` spent in these categories, 0 to 1."""
        return self.sampled_window.share(*categories)

    def largest_place(self, *categories: str) -> tuple[Place, float] | None:
        """Return the place of these categories where most time was spent, and its share of all time, 0 to 1.

        The time is that of `sampled_window`. Places with the same name count as one, and so do places without
        a name at the same line. Return None if no time was spent in these categories.
        """
        places = self.places
        by_name: dict[tuple[str, str], Counter[Place]] = {}
        for place, micros in places.items():
            if place.category in categories:
                by_name.setdefault((place.category, place.name or place.line), Counter())[place] += micros
        largest = max(by_name.values(), key=Counter.total, default=Counter[Place]())
        if not largest.total():
            return None
        return largest.most_common(1)[0][0], largest.total() / places.total()

    @property
    def current_elasticity(self) -> Elasticity | None:
        """The elasticity that was measured lately and holds for the present slots and runs, or None."""
        last = self.elasticity
        if last is None or last.slots != self.view.slots or self._age_ms(last) > elasticity.FRESH_MS:
            return self._elasticity_of_more_slots
        return last if elasticity.still_holds(last, self.mean_service_seconds or 0.0) else None

    @property
    def _elasticity_of_more_slots(self) -> Elasticity | None:
        """The elasticity that was measured lately with more slots, if its smaller part had as many as now."""
        slots, mean = self.view.slots, self.mean_service_seconds or 0.0
        for measured in (self.elasticity, self.earlier_elasticity):
            if measured is None or not measured.part <= slots < measured.slots:
                continue
            if self._age_ms(measured) <= elasticity.FRESH_MS and elasticity.still_holds(
                measured, mean, slots=slots
            ):
                return measured
        return None

    @property
    def elasticity_before(self) -> Elasticity | None:
        """The last elasticity that was measured with another number of slots than there are now, or None."""
        measured = (self.elasticity, self.earlier_elasticity)
        return next((last for last in measured if last is not None and last.slots != self.view.slots), None)

    def _age_ms(self, measured: Elasticity) -> int:
        """Return the age of a measurement, or 0 if the time of the facts is not known."""
        return self.now_ms - measured.at_ms if self.now_ms else 0


def read_pool_facts(store: Store, snapshot: Snapshot) -> list[PoolFacts]:
    """Read from Redis what a diagnosis needs of each pool, in the snapshot's order.

    Seven round trips in all. Raises `BrokerAway`.
    """
    names = [view.name for view in snapshot.pools]
    now_ms = snapshot.now_ms
    spans = (RECENT_SECONDS, MINUTE_SECONDS)
    recent_windows, minutes = window.read_window_spans(store, names, now_ms=now_ms, seconds=spans)
    _extend_if_few_ended(store, snapshot.pools, minutes, now_ms)
    past_days = days.read_days(store, names, since_ms=now_ms - OLDEST_MS)
    earlier_windows = _read_windows_of_new_pools(store, names, past_days, now_ms)
    elasticities = elasticity.read_elasticities(store, names)
    probe_states = probing.read_probe_states(store, names)
    return [
        PoolFacts(
            view,
            recent=recent_windows[n],
            minute=minutes[n],
            usual=usual_seconds(earlier_windows[n], [kinds for _, kinds in past_days[n]]),
            elasticity=elasticities[n][0],
            earlier_elasticity=elasticities[n][1],
            now_ms=now_ms,
            days=past_days[n],
            is_probed=probe_states[n][0],
            probe_seconds=probe_states[n][1],
        )
        for n, view in enumerate(snapshot.pools)
    ]


def _read_windows_of_new_pools(
    store: Store, names: Sequence[str], past_days: Sequence[Sequence[Entry]], now_ms: int
) -> list[list[Window]]:
    """Return the windows of the last minutes of each pool; [] for one with enough entries of past days."""
    young = [name for name, entries in zip(names, past_days, strict=True) if len(entries) < SETTLED_ENTRIES]
    earlier = window.read_windows_apart(
        store, young, now_ms=now_ms, seconds=360, before_seconds=SETTLED_SECONDS
    )
    windows = dict(zip(young, earlier, strict=True))
    return [windows.get(name, []) for name in names]


def _extend_if_few_ended(store: Store, views: Sequence[PoolView], minute: list[Window], now_ms: int) -> None:
    """Replace, in `minute`, the window of each pool in which few runs ended by one of five minutes.

    Not that of a pool without work: it has been idle for the minute, whatever it did before.
    """
    indices = [
        n
        for n, (view, last) in enumerate(zip(views, minute, strict=True))
        if last.slot_seconds > 0 and last.ended < ENOUGH_ENDS and (last.ended or view.busy or view.ready)
    ]
    if not indices:
        return
    pools = [views[n].name for n in indices]
    longer = window.read_windows(store, pools, now_ms=now_ms, seconds=FEW_SECONDS)
    for n, extended in zip(indices, longer, strict=True):
        minute[n] = extended


def usual_seconds(past: Sequence[Window], day: Sequence[Mapping[str, KindFigures]]) -> dict[str, float]:
    """Return the usual service time of each kind in seconds: the median of earlier windows and entries."""
    means: dict[str, list[float]] = {}
    for kinds in (*(window_.kinds for window_ in past), *day):
        for kind, figures in kinds.items():
            if figures.ended >= USUAL_ENDS and figures.mean_service_seconds is not None:
                means.setdefault(kind, []).append(figures.mean_service_seconds)
    return {kind: median(values) for kind, values in means.items()}

"""The facts of each pool: windows of ten seconds and a minute, usual service times, measured elasticity."""

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

#: Usual service times come from windows older than these seconds, with at least this many ends each.
SETTLED_SECONDS, ENOUGH = 20.0, 20
#: With this many entries of the last days, the windows of the last minutes add nothing to the usual times.
SETTLED_ENTRIES = 12
#: A day, and two hours for an entry of yesterday that began earlier than this time of day, ms.
DAY_MS = 26 * 3_600_000


@dataclass(frozen=True)
class PoolFacts:
    """The input of the rules."""

    view: PoolView
    recent: Window = field(default_factory=Window)
    #: The last minute, or the last five minutes if few runs ended in one.
    minute: Window = field(default_factory=Window)
    #: The usual mean service time by kind, seconds.
    usual: Mapping[str, float] = field(default_factory=dict)
    elasticity: Elasticity | None = None
    #: The last elasticity that was measured with other slots.
    earlier: Elasticity | None = None
    #: The time of the snapshot, ms by the server's clock; 0 if nothing depends on it.
    now_ms: int = 0
    #: The entries of the last days, oldest first.
    days: Sequence[Entry] = ()
    #: True while the pool's elasticity is being measured: part of its slots are idle.
    is_probed: bool = False
    #: The cost of these measurements in this hour, in seconds of the pool's rate.
    probe_seconds: float = 0.0

    @property
    def waiting(self) -> list[QueueView]:
        """The queues with ready messages."""
        return [queue for queue in self.view.queues if queue.depth.ready]

    @property
    def ready(self) -> int:
        """The number of ready messages."""
        return self.view.ready

    @property
    def rate(self) -> float:
        """Ends a second, of the newest window with ends."""
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
        """The share of the slots' time in use, 0 to 1."""
        for figures in (self.recent, self.minute):
            if figures.use is not None:
                return figures.use
        return self.view.utilisation or 0.0

    @property
    def mean(self) -> float | None:
        """The mean service time of the newest window with enough ends, seconds."""
        for figures in (self.recent, self.minute):
            if figures.ended >= ENOUGH:
                return figures.service_seconds / figures.ended
        return self.minute.service_seconds / self.minute.ended if self.minute.ended else None

    @property
    def slowdown(self) -> float | None:
        """The service time as a multiple of the usual one for the same kinds.

        None if fewer than half of the runs are of kinds whose usual time is known.
        """
        newest = self.newest
        compared = [
            (kind, figures) for kind, figures in newest.kinds.items() if figures.ended and kind in self.usual
        ]
        expected = sum(figures.ended * self.usual[kind] for kind, figures in compared)
        if not expected or sum(figures.ended for _, figures in compared) < newest.ended / 2:
            return None
        return sum(figures.service_seconds for _, figures in compared) / expected

    @property
    def newest(self) -> Window:
        """The newest window with enough ends."""
        return self.recent if self.recent.ended >= ENOUGH else self.minute

    def mean_of(self, kind: str) -> float | None:
        """Return the mean service time of a kind, in seconds. Return None if no run of it ended."""
        figures = self.newest.kinds.get(kind)
        return figures.mean if figures is not None else None

    def part_of(self, kind: str) -> float:
        """Return the share of a kind in the slots' time."""
        figures, total = self.newest.kinds.get(kind), self.newest.service_seconds
        return figures.service_seconds / total if figures is not None and total else 0.0

    def rate_of(self, kind: str) -> float:
        """Return the ends of a kind a second."""
        figures = self.newest.kinds.get(kind)
        return figures.ended / self.newest.seconds if figures is not None and self.newest.seconds else 0.0

    @property
    def calls(self) -> Mapping[tuple[str, str], CallFigures]:
        """The calls of the last minute, by kind and peer."""
        return self.minute.calls

    @property
    def broker_seconds(self) -> float:
        """The time in which the broker replies to the worker processes, seconds."""
        return median([report.broker_seconds for report in self.view.running] or [0.0])

    @property
    def headroom(self) -> float:
        """How many times the pool's rate can grow before the processors of its hosts are full."""
        return processors.headroom(self.sampled, self.view.running)

    @property
    def has_room(self) -> bool:
        """True if the slots compute and processors of their hosts are free."""
        return processors.processors_are_free(self.sampled, self.view.running)

    def slower_than(self, seconds: float, within_seconds: float) -> float | None:
        """Return the service time as a multiple of the earlier one of the same kinds.

        The earlier one was measured `seconds` ago, or at most `within_seconds` before or after that time.
        Return None if none was.
        """
        then = self.now_ms - seconds * 1000
        near = [kinds for at, kinds in self.days if abs(at - then) <= within_seconds * 1000]
        usual = usual_seconds([], near)
        compared = [each for kind, each in self.newest.kinds.items() if each.ended and kind in usual]
        expected = sum(each.ended * usual[kind] for kind, each in self.newest.kinds.items() if kind in usual)
        return sum(each.service_seconds for each in compared) / expected if expected else None

    @property
    def places(self) -> Counter[Place]:
        """The microseconds of runs by place, of the newest window with any."""
        return self.sampled.places

    @property
    def sampled(self) -> Window:
        """The newest window in which slots were looked at."""
        return self.recent if sum(self.recent.places.values()) else self.minute

    def share_of(self, *categories: str) -> float:
        """Return the share of the running time that was spent in these categories, 0 to 1."""
        return self.sampled.share(*categories)

    def largest_place(self, *categories: str) -> tuple[Place, float] | None:
        """Return the place of these categories with the largest share of time, and the share.

        Return None if the slots were seen at no such place.
        """
        places = self.places
        named: Counter[tuple[str, str]] = Counter()
        for place, micros in places.items():
            if place.category in categories:
                named[place.category, place.name or place.line] += micros
        if not named:
            return None
        (category, name), micros = named.most_common(1)[0]
        best = max(
            (place for place in places if place.category == category and (place.name or place.line) == name),
            key=lambda place: places[place],
        )
        return best, micros / sum(places.values())

    @property
    def current_elasticity(self) -> Elasticity | None:
        """The elasticity, if it was measured lately and holds for the slots and the runs of now."""
        last = self.elasticity
        if last is None or last.slots != self.view.slots or self._age_ms(last) > elasticity.FRESH_MS:
            return self._of_more_slots
        return last if elasticity.still_holds(last, self.mean or 0.0) else None

    @property
    def _of_more_slots(self) -> Elasticity | None:
        """The elasticity that was measured lately with more slots, if its smaller part had as many as now."""
        slots, mean = self.view.slots, self.mean or 0.0
        for measured in (self.elasticity, self.earlier):
            if measured is None or not measured.part <= slots < measured.slots:
                continue
            if self._age_ms(measured) <= elasticity.FRESH_MS and elasticity.still_holds(
                measured, mean, slots=slots
            ):
                return measured
        return None

    @property
    def elasticity_before(self) -> Elasticity | None:
        """The last elasticity that was measured with another number of slots than now.

        Today's throughput is compared with it.
        """
        measured = (self.elasticity, self.earlier)
        return next((each for each in measured if each is not None and each.slots != self.view.slots), None)

    def _age_ms(self, measured: Elasticity) -> int:
        return self.now_ms - measured.at_ms if self.now_ms else 0


def read_pool_facts(store: Store, snapshot: Snapshot) -> list[PoolFacts]:
    """Read from Redis what a diagnosis needs of each pool, in the snapshot's order.

    Eight round trips in all. Raises `BrokerAway`.
    """
    names = [view.name for view in snapshot.pools]
    now_ms = snapshot.now_ms
    spans = (RECENT_SECONDS, MINUTE_SECONDS)
    recent, minute = window.read_window_spans(store, names, now_ms=now_ms, seconds=spans)
    _extend_if_few_ended(store, names, minute, now_ms)
    past_days = days.read_days(store, names, since_ms=now_ms - DAY_MS)
    before = _windows_of_new_pools(store, names, past_days, now_ms)
    probed, earlier = (
        elasticity.read_last_elasticity(store, names),
        elasticity.read_earlier_elasticity(store, names),
    )
    probes = probing.read_probe_states(store, names)
    return [
        PoolFacts(
            view,
            now,
            last,
            usual_seconds(past, [kinds for _, kinds in entries]),
            measured,
            other,
            now_ms,
            entries,
            *probe,
        )
        for view, now, last, past, entries, measured, other, probe in zip(
            snapshot.pools, recent, minute, before, past_days, probed, earlier, probes, strict=True
        )
    ]


def _windows_of_new_pools(
    store: Store, names: Sequence[str], past_days: Sequence[Sequence[Entry]], now_ms: int
) -> list[list[Window]]:
    """Return the windows of the last minutes for each pool that has few entries of the last days.

    A pool with enough entries gets an empty list.
    """
    young = [name for name, entries in zip(names, past_days, strict=True) if len(entries) < SETTLED_ENTRIES]
    earlier = window.read_windows_apart(
        store, young, now_ms=now_ms, seconds=360, before_seconds=SETTLED_SECONDS
    )
    windows = dict(zip(young, earlier, strict=True))
    return [windows.get(name, []) for name in names]


def _extend_if_few_ended(store: Store, names: Sequence[str], minute: list[Window], now_ms: int) -> None:
    """Replace the window by one of five minutes for each pool that ended few runs in a minute."""
    few = [n for n, last in enumerate(minute) if last.slot_seconds > 0 and last.ended < ENOUGH_ENDS]
    longer = (
        window.read_windows(store, [names[n] for n in few], now_ms=now_ms, seconds=FEW_SECONDS) if few else []
    )
    for n, extended in zip(few, longer, strict=True):
        minute[n] = extended


def usual_seconds(past: Sequence[Window], day: Sequence[Mapping[str, KindFigures]]) -> dict[str, float]:
    """Return the usual service time of each kind: the median of earlier windows and of the day's entries."""
    means: dict[str, list[float]] = {}
    for kinds in (*(each.kinds for each in past), *day):
        for kind, figures in kinds.items():
            if figures.ended >= min(ENOUGH, 5) and figures.mean is not None:
                means.setdefault(kind, []).append(figures.mean)
    return {kind: median(values) for kind, values in means.items()}

"""Keep the state of periodic tasks: who leads the schedulers, what was fired last, what comes next.

That a period fires once does not hang on the leader alone: each is sent under a claim of its own
(producer/scheduler.py), so of two that take themselves for the leader one finds the claim taken.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import schedule_key, scheduler_key, schedules_key
from millpond.broker.scripts import script


@dataclass(frozen=True)
class Schedule:
    """Say how a periodic task stands; times are ms by the server's clock, zero: never.

    `since_ms` is when a scheduler first saw it: periods before it do not count as missed. `missed` counts
    periods in which no scheduler ran or the queue had no room; of each run of them the last was fired late.
    `trouble` is why the period that is due now is not fired yet.
    """

    name: str
    kind: str = ""
    timing: str = ""
    queue: str = ""
    since_ms: int = 0
    next_due_ms: int = 0
    last_due_ms: int = 0
    last_fired_ms: int = 0
    last_id: str = ""
    last_missed: int = 0
    fired: int = 0
    missed: int = 0
    by: str = ""
    trouble: str = ""


_NUMBERS = frozenset(field.name for field in fields(Schedule) if field.type is int)
_NAMES = frozenset(field.name for field in fields(Schedule)) - {"name"}


def lead(store: Store, scheduler: str, *, lease_ms: int) -> bool:
    """Take or renew the leader's lease; say whether this scheduler leads now."""
    with translate_errors("asking who leads the schedulers"):
        return bool(
            script("lead_schedulers").run(store.client, (scheduler_key(store.prefix),), (scheduler, lease_ms))
        )


def resign(store: Store, scheduler: str) -> None:
    """Give the lease up, so that the next scheduler need not wait for its end."""
    with translate_errors("handing over to another scheduler"):
        script("lead_schedulers").run(store.client, (scheduler_key(store.prefix),), (scheduler, 0))


def leader(store: Store) -> str | None:
    """Name the scheduler that leads; None: none runs."""
    with translate_errors("asking who leads the schedulers"):
        found = store.client.get(scheduler_key(store.prefix))
    return None if found is None else str(found.decode())


def schedules(store: Store) -> list[Schedule]:
    """Return all schedules, by name."""
    with translate_errors("listing the schedules"):
        names = sorted(name.decode() for name in store.client.smembers(schedules_key(store.prefix)))
    return read(store, names)


def read(store: Store, names: Iterable[str]) -> list[Schedule]:
    """Return the state of schedules by their names, empty where nothing was noted."""
    listed = list(names)
    with translate_errors("reading the schedules"), store.client.pipeline(transaction=False) as pipe:
        for name in listed:
            pipe.hgetall(schedule_key(name, store.prefix))
        found = pipe.execute()
    return [_schedule(name, raw) for name, raw in zip(listed, found, strict=True)]


def declare(store: Store, described: Mapping[str, Mapping[str, str | int]], *, now_ms: int) -> None:
    """Write down what a leader's table says of its schedules, and forget those that are not in it."""
    with translate_errors("describing the schedules"), store.client.pipeline() as pipe:
        pipe.delete(schedules_key(store.prefix))
        for name, values in described.items():
            key = schedule_key(name, store.prefix)
            pipe.sadd(schedules_key(store.prefix), name)
            pipe.hset(key, mapping=dict(values))
            pipe.hsetnx(key, "since_ms", now_ms)
        pipe.execute()


def update(store: Store, name: str, **values: str | int) -> None:
    """Write down what changed of a schedule: `next_due_ms`, `trouble`."""
    with translate_errors(f"noting schedule {name}"):
        store.client.hset(schedule_key(name, store.prefix), mapping=values)


def record_fired(store: Store, name: str, *, due_ms: int, id: str, missed: int, by: str) -> bool:
    """Note that a period was fired; False when it had been noted before."""
    with translate_errors(f"noting schedule {name}"):
        words = (due_ms, id, missed, by)
        return bool(script("record_fired").run(store.client, (schedule_key(name, store.prefix),), words))


def _schedule(name: str, raw: Mapping[bytes, bytes]) -> Schedule:
    found = {key.decode(): value.decode() for key, value in raw.items()}
    known = {key: int(value) if key in _NUMBERS else value for key, value in found.items() if key in _NAMES}
    return Schedule(name, **known)  # type: ignore[arg-type]

"""The state of schedules in Redis: the leading scheduler, the last period fired, the next one due.

A period fires once even if two schedulers believe that they lead: each period is sent under a unique key of
its own (producer/scheduler.py), so the second send is a duplicate.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import schedule_key, scheduler_key, schedules_key
from millpond.broker.scripts import script


@dataclass(frozen=True)
class Schedule:
    """The state of one schedule. Times are ms by the server's clock. Zero means never.

    `since_ms` is when the schedule was first declared: earlier periods do not count as missed. `missed`
    counts the periods in which no scheduler ran or the queue had no room. The last of several such periods
    was fired late. `trouble` is the reason why the period that is due has not been fired yet. `by` is the
    scheduler that fired last.
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


def take_lead(store: Store, scheduler: str, *, lease_ms: int) -> bool:
    """Take or renew the leader's lease. Return True if this scheduler leads now."""
    with translate_errors("reading which scheduler leads"):
        return bool(
            script("lead_schedulers").run(store.client, (scheduler_key(store.prefix),), (scheduler, lease_ms))
        )


def give_up_lead(store: Store, scheduler: str) -> None:
    """Give up the leader's lease, so that another scheduler can lead at once."""
    with translate_errors("handing over to another scheduler"):
        script("lead_schedulers").run(store.client, (scheduler_key(store.prefix),), (scheduler, 0))


def read_leader(store: Store) -> str | None:
    """Return the name of the leading scheduler, or None if none runs."""
    with translate_errors("reading which scheduler leads"):
        name = store.client.get(scheduler_key(store.prefix))
    return None if name is None else str(name.decode())


def read_all_schedules(store: Store) -> list[Schedule]:
    """Return all schedules, by name."""
    with translate_errors("listing the schedules"):
        names = sorted(name.decode() for name in store.client.smembers(schedules_key(store.prefix)))
    return read_schedules(store, names)


def read_schedules(store: Store, names: Iterable[str]) -> list[Schedule]:
    """Return the states of the named schedules. Of a schedule without a state all fields have defaults."""
    names = list(names)
    with store.pipeline("reading the schedules") as pipe:
        for name in names:
            pipe.hgetall(schedule_key(name, store.prefix))
        replies = pipe.execute()
    return [_parse_schedule(name, raw) for name, raw in zip(names, replies, strict=True)]


def declare_schedules(store: Store, declared: Mapping[str, Mapping[str, str | int]], *, now_ms: int) -> None:
    """Replace the list of schedules by those that the leader declares: name -> fields of its state."""
    with store.pipeline("declaring the schedules", atomic=True) as pipe:
        pipe.delete(schedules_key(store.prefix))
        for name, values in declared.items():
            key = schedule_key(name, store.prefix)
            pipe.sadd(schedules_key(store.prefix), name)
            pipe.hset(key, mapping=dict(values))
            pipe.hsetnx(key, "since_ms", now_ms)
        pipe.execute()


def update_schedule(store: Store, name: str, **fields: str | int) -> None:
    """Set fields of a schedule's state (`Schedule`)."""
    with translate_errors(f"recording schedule {name}"):
        store.client.hset(schedule_key(name, store.prefix), mapping=fields)


def record_fired(store: Store, name: str, *, due_ms: int, task_id: str, missed: int, scheduler: str) -> bool:
    """Record that a scheduler fired a period. Return False if this or a later period was recorded before.

    `missed` is the number of periods before it that were missed.
    """
    with translate_errors(f"recording schedule {name}"):
        args = (due_ms, task_id, missed, scheduler)
        return bool(script("record_fired").run(store.client, (schedule_key(name, store.prefix),), args))


def _parse_schedule(name: str, raw: Mapping[bytes, bytes]) -> Schedule:
    """Return the state of a schedule from its hash, without fields of a newer version."""
    fields = {key.decode(): value.decode() for key, value in raw.items()}
    values = {key: int(value) if key in _NUMBERS else value for key, value in fields.items() if key in _NAMES}
    return Schedule(name, **values)  # type: ignore[arg-type]

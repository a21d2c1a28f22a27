"""Limits of a queue, for the whole fleet: read, declare from the pools table, change at run time.

The values of the pools table are stored as `table:<name>`. A value set at run time is stored as `<name>`
and wins until it is unset.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from millpond.broker.connection import Store, translate_errors
from millpond.broker.errors import BadLimit
from millpond.broker.keys import QueueKeys, queues_key
from millpond.broker.scripts import script

_TABLE = "table:"


@dataclass(frozen=True)
class Limits:
    """The limits of a queue. Zero means no limit.

    `bound` and `delayed_bound` count messages. A bound given as a time is `bound_seconds`, and `bound` is
    its present value in messages. `rate` is tasks a second, with bursts of `burst`. `in_flight` is tasks at
    once. Nothing is fetched from a `paused` queue: tasks in flight finish, and sending goes on. A message
    becomes a dead letter after `max_deliveries`, or at once if it is longer than `message_bytes`. Up to
    `dead_bound` dead letters are kept, for `dead_keep_ms`.
    """

    bound: int = 0
    bound_seconds: float = 0.0
    overflow: str = "block"
    rate: float = 0.0
    burst: float = 0.0
    in_flight: int = 0
    paused: bool = False
    max_deliveries: int = 5
    delayed_bound: int = 1_000_000
    message_bytes: int = 10_000_000
    dead_bound: int = 10_000
    dead_keep_ms: int = 30 * 24 * 3600 * 1000


@dataclass(frozen=True)
class LimitDifference:
    """A limit of a queue that two pools tables have with different values, as they are stored.

    None is a limit that a table does not have.
    """

    name: str
    declared: str | None
    wanted: str | None

    def __str__(self) -> str:
        return (
            f"{self.name} {_shown_limit(self.name, self.declared)} -> {_shown_limit(self.name, self.wanted)}"
        )


NAMES = tuple(field.name for field in fields(Limits) if field.name != "bound_seconds")

#: The values, as stored, of the limits that are no numbers.
_WORDS = {"overflow": ("block", "reject", "shed", "caller_runs"), "paused": ("0", "1")}

#: The value in messages of a bound that is given as a time, until the drain rate is measured. The same number
#: is in _drain_rate.lua.
FIRST_BOUND = 100


def declare_limits(
    store: Store, queue: str, table_limits: Mapping[str, Any], *, authoritative: bool
) -> list[LimitDifference]:
    """Declare a queue with the limits of the pools table.

    A worker's table is `authoritative`: it replaces the declared limits. Return the limits in force that this
    changes. A producer's table only adds the limits that nobody has declared. Limits set at run time stay.
    """
    keys = QueueKeys(queue, store.prefix)
    entries = _table_entries(table_limits)
    with store.pipeline(f"declaring queue {queue!r}") as pipe:
        pipe.hgetall(keys.limits).sadd(queues_key(store.prefix), queue)
        if authoritative:
            stale = [_TABLE + name for name in NAMES if _TABLE + name not in entries]
            pipe.hdel(keys.limits, *stale)
            if entries:
                pipe.hset(keys.limits, mapping=entries)
        else:
            for name, value in entries.items():
                pipe.hsetnx(keys.limits, name, value)
        stored = pipe.execute()[0]
    return _differences(stored, entries) if authoritative else []


def compare_limits(store: Store, queue: str, table_limits: Mapping[str, Any]) -> list[LimitDifference]:
    """Return the differences between the declared limits of a queue and those of a pools table.

    A limit that was set at run time is no difference, and neither is any limit of a queue that no worker and
    no producer has declared.
    """
    with translate_errors(f"reading the limits of queue {queue!r}"):
        stored = store.client.hgetall(QueueKeys(queue, store.prefix).limits)
    return _differences(stored, _table_entries(table_limits))


def _table_entries(table_limits: Mapping[str, Any]) -> dict[str, str]:
    """Return the limits of a pools table as they are stored, by their stored names."""
    return {
        _TABLE + name: _format_limit(value)
        for name, value in table_limits.items()
        if name in NAMES and value is not None
    }


def _differences(stored: Mapping[bytes, bytes], entries: Mapping[str, str]) -> list[LimitDifference]:
    """Return the declared limits in a stored hash that differ from these entries of a pools table."""
    texts = {name.decode(): value.decode() for name, value in stored.items()}
    if not any(name.startswith(_TABLE) for name in texts):
        return []
    pairs = (
        (name, texts.get(_TABLE + name), entries.get(_TABLE + name)) for name in NAMES if name not in texts
    )
    return [
        LimitDifference(name, declared, wanted)
        for name, declared, wanted in pairs
        if _shown_limit(name, declared) != _shown_limit(name, wanted)
    ]


def _shown_limit(name: str, stored: str | None) -> str:
    """Return a stored limit as people read it: `none` for no limit. None is the default."""
    default = getattr(Limits, name)
    if stored is None:
        stored = _format_limit(default)
    if isinstance(default, str) or (name == "bound" and stored.endswith("s")):
        return stored
    number = float(stored)
    return f"{number:.12g}{'/s' if name == 'rate' else ''}" if number else "none"


def read_limits(store: Store, queue: str) -> Limits:
    """Return the limits in force of one queue."""
    return read_limits_of_all(store, [queue])[0]


def read_limits_of_all(store: Store, queues: Sequence[str]) -> list[Limits]:
    """Return the limits in force of each queue, in one round trip."""
    subject = f"queue {queues[0]!r}" if len(queues) == 1 else "the queues"
    with store.pipeline(f"reading the limits of {subject}") as pipe:
        for queue in queues:
            keys = QueueKeys(queue, store.prefix)
            pipe.hgetall(keys.limits).hget(keys.drain_rate, "bound")
        replies = pipe.execute()
        return [
            _limits_in_force(stored, bound) for stored, bound in zip(replies[::2], replies[1::2], strict=True)
        ]


def _limits_in_force(stored: Mapping[bytes, bytes], measured_bound: bytes | None) -> Limits:
    """Return the limits of a queue from its stored hash. A limit set at run time overrides the table's.

    `measured_bound` is the present value, in messages, of a bound that is given as a time.
    """
    texts = {name.decode(): value.decode() for name, value in stored.items()}
    values = {name: texts.get(name, texts.get(_TABLE + name)) for name in NAMES}
    bound, seconds = values["bound"] or "", "0"
    if bound.endswith("s"):
        seconds = bound.removesuffix("s")
        values["bound"] = (measured_bound or b"%d" % FIRST_BOUND).decode()
    parsed = {name: _parse_limit(name, value) for name, value in values.items() if value is not None}
    return Limits(**parsed, bound_seconds=float(seconds))


def read_overrides(store: Store, queue: str) -> dict[str, str]:
    """Return the limits of a queue that were set at run time, as stored. They override the pools table."""
    with translate_errors(f"reading the limits of queue {queue!r}"):
        raw = store.client.hgetall(QueueKeys(queue, store.prefix).limits)
    return {name.decode(): value.decode() for name, value in raw.items() if name.decode() in NAMES}


def change_limits(store: Store, queue: str, **limits: Any) -> Limits:
    """Set limits at run time and return the limits in force.

    None unsets a limit, and the value of the pools table is in force again. `bound` is a number, or seconds
    as a text ('30s'). Idle consumers fetch again at once, and waiting producers are admitted if there is more
    room. Raises `BadLimit` for an unknown name or a bad value.
    """
    for name in limits:
        if name not in NAMES:
            raise BadLimit(f"{name!r} is not a limit of a queue; the limits are: {', '.join(NAMES)}")
    args = [word for name, value in limits.items() for word in (name, _validate_limit(name, value))]
    keys = QueueKeys(queue, store.prefix)
    with translate_errors(f"setting the limits of queue {queue!r}"):
        script("set_limits").run(store.client, (*keys.for_scripts, queues_key(store.prefix)), (queue, *args))
        if "bound" in limits:
            script("admit_waiters").run(store.client, keys.for_scripts, ())
    return read_limits(store, queue)


def _validate_limit(name: str, value: Any) -> str:
    """Return a limit as it is stored, or "" for None.

    Raises `BadLimit` for a bad value, because every consumer would fail on it.
    """
    if value is None:
        return ""
    text = _format_limit(value)
    try:
        if name == "bound" and text.endswith("s"):
            number = float(text.removesuffix("s")) or math.nan  # a bound of 0 seconds has no meaning
        elif name in _WORDS:
            number = _WORDS[name].index(text)  # raises `ValueError` for another word
        else:
            number = _parse_limit(name, text)
    except (ValueError, OverflowError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise BadLimit(f"{value!r:.80} is not a valid {name} of a queue")
    return text


def _format_limit(value: Any) -> str:
    """Return the text of a limit as it is stored: 1 or 0 for a truth value."""
    return str(int(value)) if isinstance(value, bool) else str(value)


def _parse_limit(name: str, value: str) -> Any:
    """Return the value of a stored limit, in the type of its default."""
    default = getattr(Limits, name)
    if isinstance(default, bool):
        return value == "1"
    return type(default)(float(value)) if isinstance(default, int) else type(default)(value)

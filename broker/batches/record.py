"""Batches: a record in Redis that producers fill and close, with results that are read by its id.

A batch is complete when it is closed and all its tasks are settled. The scripts that publish and settle keep
its counts, so they are exact although deliveries repeat. Its results are a stream, in order of completion.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json import loads
from typing import Any
from uuid import uuid4

from millpond.broker.batches import batch_callback
from millpond.broker.connection import Store, translate_errors
from millpond.broker.errors import UnknownBatch
from millpond.broker.keys import batch_key, batches_key, batches_of_key
from millpond.broker.outgoing import Outgoing
from millpond.broker.scripts import script
from millpond.broker.server import server_time_ms
from millpond.broker.task_state import TaskState

#: Field of the summary -> field of the record in Redis.
_TIMES = {
    "closed_at_ms": "closed_at",
    "completed_at_ms": "completed_at",
    "cancelled_at_ms": "cancelled_at",
    "last_sent_at_ms": "fed_at",
}

#: The counts of a batch: tasks sent, and tasks by final state.
COUNTS = ("sent", "succeeded", "failed", "cancelled", "expired")

#: The numbers that the script puts into a batch callback, in this order. In the last two, 0 means never.
_CALLBACK_NUMBERS = (*COUNTS, "opened_at_ms", "closed_at_ms", "completed_at_ms", "cancelled_at_ms")

#: The position of a result: ms, and the number of the result within that millisecond.
_POSITION = re.compile(r"\d{1,20}(-\d{1,20})?")

#: The number of an owner's oldest batches that are examined if the owner has as many batches as it may.
EXAMINED = 1_000

#: Records read in one round trip.
_PAGE = 100

#: The maximum of failures that are listed of a batch, and the number of results in which they are searched.
MAX_FAILURES, SEARCHED_RESULTS = 50, 5_000

#: A complete batch and its results are kept for this long.
KEEP_MS = 7 * 24 * 3600 * 1000

#: The record of a batch that is never completed is kept for this long.
FORGOTTEN_MS = 30 * 24 * 3600 * 1000


@dataclass(frozen=True)
class Summary:
    """The counts of a batch: tasks sent, and tasks by final state.

    Times are ms by the server's clock, None if it has not happened.
    """

    id: str
    sent: int
    succeeded: int
    failed: int
    cancelled: int
    expired: int
    opened_at_ms: int
    closed_at_ms: int | None
    completed_at_ms: int | None
    cancelled_at_ms: int | None
    description: str
    #: The time of the last send, and the task id of the batch callback (`then`).
    last_sent_at_ms: int | None = None
    then_id: str | None = None
    #: The gateway token that may send to it, see it and cancel it. None if only tokens for every kind may.
    owner: str | None = None

    @property
    def settled(self) -> int:
        """The number of tasks that have ended, in any state."""
        return self.succeeded + self.failed + self.cancelled + self.expired

    @property
    def pending(self) -> int:
        """The number of tasks that have not ended."""
        return self.sent - self.settled

    @property
    def complete(self) -> bool:
        """True if the batch is closed and all its tasks are settled."""
        return self.completed_at_ms is not None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one task of a batch.

    `value` is its handler's result. `error` is one line. `position` is the result's position in the stream.
    """

    id: str
    state: TaskState
    value: Any
    error: str | None
    position: str


def open_batch(
    store: Store,
    *,
    id: str | None = None,
    description: str = "",
    then: Outgoing | None = None,
    owner: str | None = None,
) -> str:
    """Open a batch and return its id.

    Without an `id` the batch gets a random one. `then` is its batch callback, whose header is made by
    `batch_callback.callback_header`. `owner` names the gateway token that opens the batch.
    """
    batch, opened_ms = id or str(uuid4()), server_time_ms(store)
    record: dict[str, Any] = {"opened_at": opened_ms, "keep_ms": KEEP_MS, "description": description}
    if owner is not None:
        record["owner"] = owner
    if then is not None:
        record |= batch_callback.callback_fields(then, store.prefix)
    with store.pipeline("opening a batch", atomic=True) as pipe:
        pipe.hset(batch_key(batch, store.prefix), mapping=record)
        pipe.pexpire(batch_key(batch, store.prefix), FORGOTTEN_MS)
        pipe.zadd(batches_key(store.prefix), {batch: opened_ms})
        pipe.zremrangebyscore(batches_key(store.prefix), "-inf", opened_ms - FORGOTTEN_MS)
        if owner is not None:
            pipe.zadd(batches_of_key(owner, store.prefix), {batch: opened_ms})
            pipe.pexpire(batches_of_key(owner, store.prefix), FORGOTTEN_MS)
        pipe.execute()
    return batch


def may_open_batch(store: Store, owner: str, max_count: int) -> bool:
    """True if an owner may open another batch: fewer than `max_count` are kept, open or complete.

    If the list of the owner's batches is full, this removes entries whose record has expired, among the
    `EXAMINED` oldest.
    """
    key = batches_of_key(owner, store.prefix)
    with translate_errors(f"counting the batches of {owner}"):
        if store.client.zcard(key) < max_count:
            return True
        oldest = store.client.zrange(key, 0, EXAMINED - 1)
        with store.client.pipeline(transaction=False) as pipe:
            for batch in oldest:
                pipe.exists(batch_key(batch.decode(), store.prefix))
            expired = [batch for batch, is_kept in zip(oldest, pipe.execute(), strict=True) if not is_kept]
        return bool(expired) and bool(store.client.zrem(key, *expired))


def close_batch(store: Store, batch: str) -> Summary:
    """Close a batch to further tasks and return its counts. Raises `UnknownBatch`."""
    with translate_errors(f"closing batch {batch}"):
        script("close_batch").run(store.client, (batch_key(batch, store.prefix),), ())
    return read_summary(store, batch)


def read_summary(store: Store, batch: str) -> Summary:
    """Return the present counts of a batch. Raises `UnknownBatch`."""
    with translate_errors(f"reading batch {batch}"):
        raw = store.client.hgetall(batch_key(batch, store.prefix))
    if not raw:
        raise UnknownBatch(batch)
    return _parse_summary(batch, raw)


def _parse_summary(batch: str, raw: dict[bytes, bytes]) -> Summary:
    """Return the summary of a batch from the hash of its record."""
    fields = {name.decode(): value.decode() for name, value in raw.items() if name != b"then"}
    counts = {name: int(fields.get(name, 0)) for name in COUNTS}
    times: dict[str, Any] = {
        name: int(fields[stored]) if stored in fields else None for name, stored in _TIMES.items()
    }
    return Summary(
        id=batch,
        opened_at_ms=int(fields["opened_at"]),
        description=fields.get("description", ""),
        then_id=fields.get("then_id"),
        owner=fields.get("owner"),
        **counts,
        **times,
    )


def read_results(
    store: Store, batch: str, *, after: str = "0", wait_ms: int = 1000, limit: int = 500
) -> list[Result]:
    """Return at most `limit` results of a batch that come after a position, in order of completion.

    `after` is the `position` of a result, or "0" for the beginning. If there is none yet, wait up to
    `wait_ms` for one (0: do not wait). Raises `ValueError` for a bad position.
    """
    if not _POSITION.fullmatch(after):
        raise ValueError(f'after is the position of a result, or "0" for all of them, not {after!r:.80}')
    stream = batch_key(batch, store.prefix) + ":results"
    with translate_errors(f"reading the results of batch {batch}"):
        reply = store.client.xread({stream: after}, count=limit, block=wait_ms or None)
    return [_parse_result(entry, fields) for _stream, entries in reply or () for entry, fields in entries]


def read_last_failures(store: Store, batch: str) -> list[Result]:
    """Return at most `MAX_FAILURES` results of other states than succeeded, the newest first.

    Only the `SEARCHED_RESULTS` latest results of the batch are read.
    """
    stream = batch_key(batch, store.prefix) + ":results"
    failures: list[Result] = []
    end, left = "+", SEARCHED_RESULTS
    while left > 0 and len(failures) < MAX_FAILURES:
        with translate_errors(f"reading the results of batch {batch}"):
            page = store.client.xrevrange(stream, max=end, count=min(500, left))
        if not page:
            break
        latest = (_parse_result(entry, fields) for entry, fields in page)
        failures += [result for result in latest if result.state is not TaskState.SUCCEEDED]
        left, end = left - len(page), "(" + page[-1][0].decode()
    return failures[:MAX_FAILURES]


def read_batches(store: Store, *, limit: int = 100, still_open: bool = False) -> Iterator[Summary]:
    """Yield at most `limit` batches, the newest first.

    With `still_open`, only batches that are not closed.
    """
    yielded, start = 0, 0
    while yielded < limit:
        with store.pipeline("listing the batches") as pipe:
            ids = store.client.zrevrange(batches_key(store.prefix), start, start + _PAGE - 1)
            for batch in ids:
                pipe.hgetall(batch_key(batch.decode(), store.prefix))
            records = pipe.execute()
        for batch, raw in zip(ids, records, strict=True):
            # The id of a batch whose record has expired remains in the list.
            if raw and yielded < limit and not (still_open and b"closed_at" in raw):
                yielded += 1
                yield _parse_summary(batch.decode(), raw)
        if len(ids) < _PAGE:
            return
        start += _PAGE


def parse_completed_batch(header: Mapping[str, Any] | None) -> Summary | None:
    """Return the summary of the batch whose callback has this header `after`, as of its completion.

    Return None without the header, or before the script has put the counts into it.
    """
    if not header or not isinstance(header.get("counts"), list):
        return None
    numbers: dict[str, Any] = dict(zip(_CALLBACK_NUMBERS, header["counts"], strict=False))
    for name in ("completed_at_ms", "cancelled_at_ms"):
        numbers[name] = numbers[name] or None
    return Summary(id=header["batch"], description=header["description"], **numbers)


def _parse_result(entry: bytes, fields: dict[bytes, bytes]) -> Result:
    """Return the result in an entry of the stream."""
    state = TaskState(fields[b"state"].decode())
    value, error = _parse_detail(fields[b"detail"])
    return Result(fields[b"id"].decode(), state, value, error, entry.decode())


def _parse_detail(text: bytes) -> tuple[Any, str | None]:
    """Return the value and the error of a result, None for one that it lacks.

    If the result cannot be read, or the server had no memory for it, the error says so.
    """
    try:
        detail = loads(text or b"{}")
        value, error = detail.get("value"), detail.get("error")
    except (ValueError, AttributeError, RecursionError):
        return None, "the result cannot be read: it is not a JSON object"
    if detail.get("dropped") and not error:
        error = "the result was dropped: the broker was out of memory"
    return value, error

"""Authenticate requests by their token, and decide what each token may do.

Without configured tokens, requests to this machine by its own name are allowed everything. A token may send
its kinds, and see and cancel its own tasks and batches. A token for every kind may do everything.
producer/gateway/README.md has the table.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.producer.gateway.options import SendOptions
from millpond.producer.gateway.problems import ApiError
from millpond.producer.gateway.thread_pools import ThreadPools
from millpond.producer.gateway.tokens import ANONYMOUS, Principal, find_principal
from millpond.tasks.contract import Contract
from millpond.tasks.errors import SettingsError, UnknownBatch
from millpond.tasks.process.loopback import is_loopback
from millpond.tasks.settings import GatewayToken

#: The most batches whose owner, and whose number of tasks, is cached. The owner of a batch never changes.
CACHED_BATCHES = 10_000
#: How long the number of tasks of a batch is cached.
COUNT_SECONDS = 1.0
#: How long it is cached that a token has its maximum of batches, because counting them costs the server.
FULL_SECONDS = 5.0


def check_address(host: str, tokens: Sequence[GatewayToken]) -> None:
    """Raise `SettingsError` for an address beyond this machine if no token is configured."""
    if not tokens and not is_loopback(host):
        raise SettingsError(
            f"the gateway does not listen on {host or 'every address'} without tokens: "
            "make one with `millpond gateway token NAME`, or leave out --host"
        )


def authenticate(tokens: Sequence[GatewayToken], headers: Headers) -> Principal:
    """Return the principal of a request, `ANONYMOUS` if no tokens are configured.

    Raises `ApiError` 401 for an unknown token. Without tokens, raises 403 for a `Host` header that does not
    name this machine (DNS rebinding).
    """
    if not tokens:
        # A web site may let its own name resolve to this machine, and so reach the gateway from a browser.
        if not _is_local_host(headers.get("host", "")):
            text = "without tokens the gateway answers requests to localhost only"
            raise ApiError(403, "foreign_host", text)
        return ANONYMOUS
    scheme, _, token = headers.get("authorization", "").partition(" ")
    principal = find_principal(tokens, token.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        text = "send a token that the gateway knows: Authorization: Bearer …"
        raise ApiError(401, "unauthorized", text, headers={"WWW-Authenticate": "Bearer"})
    return principal


@lru_cache(maxsize=256)
def _is_local_host(host: str) -> bool:
    """True if the value of a `Host` header is empty or names loopback."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return not name or is_loopback(name)


def check_kind_allowed(principal: Principal, kind: str) -> None:
    """Raise `ApiError` 403 if the principal may not send a kind."""
    if not principal.may_send(kind):
        raise ApiError(403, "forbidden_kind", f"the token {principal.name} may not send {kind}")


def check_options_allowed(
    principal: Principal, contract: type[Contract] | None, options: SendOptions, overflow: str | None
) -> None:
    """Raise `ApiError` 403 for a queue, id, priority or overflow policy that the principal may not choose.

    `contract` is that of the task, None for a task of a Celery application. `overflow` is None if the request
    names no policy.
    """
    queue, name = options.queue, principal.name
    kind_queue = None if contract is None else contract.queue
    if queue not in (None, kind_queue) and not principal.may_name(queue or ""):
        text = f"the token {name} may not name the queue {queue}: add it to `queues` of the token"
        raise ApiError(403, "forbidden_queue", text)
    if overflow == "shed" and not principal.has_right("shed"):
        text = f"the token {name} may not throw out tasks (overflow=shed): add `shed` to its `rights`"
        raise ApiError(403, "forbidden_overflow", text)
    if options.priority != 0 and not principal.has_right("priority"):
        text = f"the token {name} may not choose a priority: add `priority` to its `rights`"
        raise ApiError(403, "forbidden_priority", text)
    if options.id is not None and not principal.owns_task(options.id):
        raise ApiError(403, "forbidden_id", f"an id that the token {name} chooses begins with {name}:")


def require_own_task(principal: Principal, task_id: str) -> None:
    """Raise `ApiError` 403 for an id that is not in the principal's name space, whether it exists or not."""
    if not principal.owns_task(task_id):
        text = f"the ids of the tasks of the token {principal.name} begin with {principal.name}:"
        raise ApiError(403, "forbidden_task", text)


class BatchOwners:
    """The owners of batches and the limits of batches and of owners, cached for one event loop."""

    def __init__(self, store: Store, threads: ThreadPools) -> None:
        self._store = store
        self._threads = threads
        self._owners: OrderedDict[str, str | None] = OrderedDict()
        #: Token -> the monotonic time until which its batches are not counted again.
        self._full_until: dict[str, float] = {}
        #: Batch -> the monotonic time until which its tasks are not counted again, and their number.
        self._task_counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    async def require_owner(self, principal: Principal, batch: str) -> None:
        """Raise `ApiError` 403 if the principal's token did not open the batch. Raises `BrokerError`."""
        if principal.is_unrestricted:
            return
        if batch not in self._owners:
            summary = await self._threads.lookups.run(
                principal.name, lambda: record.read_summary(self._store, batch)
            )
            _cache_entry(self._owners, batch, summary.owner)
        if self._owners[batch] != principal.name:
            text = f"{principal.name} did not open this batch: use the token that did, or one for every kind"
            raise ApiError(403, "forbidden_batch", text)

    async def require_room(self, principal: Principal, max_batches: int) -> None:
        """Raise `ApiError` 429 if the principal has `max_batches` batches. Raises `BrokerError`."""
        is_full = time.monotonic() < self._full_until.get(principal.name, 0.0)
        if not is_full:
            is_full = not await self._threads.lookups.run(
                principal.name, lambda: record.may_open_batch(self._store, principal.name, max_batches)
            )
            if is_full:
                self._full_until[principal.name] = time.monotonic() + FULL_SECONDS
        if is_full:
            text = f"{max_batches} batches of {principal.name} are kept, the most of one token (max_batches)"
            raise ApiError(429, "too_many_batches", text, retry_after=60)

    async def has_task_room(self, principal: Principal, batch: str, max_tasks: int) -> bool:
        """True if a batch has fewer than `max_tasks` tasks. Raises `BrokerError`.

        They are counted at most every `COUNT_SECONDS`, and may exceed the maximum by the tasks of that time.
        An unknown batch has room, because the send into it is refused.
        """
        counted_until, count = self._task_counts.get(batch, (0.0, 0))
        if time.monotonic() >= counted_until:
            with suppress(UnknownBatch):
                summary = await self._threads.lookups.run(
                    principal.name, lambda: record.read_summary(self._store, batch)
                )
                count = summary.sent
                _cache_entry(self._task_counts, batch, (time.monotonic() + COUNT_SECONDS, count))
        return count < max_tasks


def _cache_entry(cache: OrderedDict[str, Any], key: str, value: Any) -> None:
    """Put an entry into a cache, and drop the oldest ones above `CACHED_BATCHES`."""
    cache[key] = value
    while len(cache) > CACHED_BATCHES:
        cache.popitem(last=False)

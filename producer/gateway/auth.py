"""Authenticate requests by token, or by the local machine if no token is configured, and authorize them.

A token may send its kinds, and see and cancel its own tasks and batches. A token for every kind may do all.
The table is in producer/gateway/README.md.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.producer.gateway.options import SendOptions
from millpond.producer.gateway.problems import api_error, translate_error
from millpond.producer.gateway.thread_pools import ThreadPools
from millpond.producer.gateway.tokens import ANONYMOUS, Principal, find_principal
from millpond.tasks.contract import Contract
from millpond.tasks.errors import BrokerError, SettingsError
from millpond.tasks.process.loopback import is_loopback
from millpond.tasks.settings import GatewayToken

#: Batches whose owner is cached. The owner of a batch never changes.
CACHED_OWNERS = 10_000


def check_address(host: str, tokens: Sequence[GatewayToken]) -> None:
    """Raise `SettingsError` for an address beyond this machine if no token is configured."""
    if not tokens and not is_loopback(host):
        raise SettingsError(
            f"the gateway does not listen on {host or 'every address'} without tokens: "
            "make one with `millpond gateway token NAME`, or leave out --host"
        )


def authenticate(tokens: Sequence[GatewayToken], headers: Headers) -> Principal:
    """Return the principal of a request. Raises `ApiError` 401, or 403 for a foreign Host header."""
    if not tokens:
        return _local_principal(headers)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    principal = find_principal(tokens, token.strip()) if scheme.lower() == "bearer" else None
    if principal is None:
        text = "send a token that the gateway knows: Authorization: Bearer …"
        raise api_error(401, "unauthorized", text, headers={"WWW-Authenticate": "Bearer"})
    return principal


def _local_principal(headers: Headers) -> Principal:
    """Return `ANONYMOUS`, unless a web site made its own name lead to this machine (DNS rebinding)."""
    if not _names_this_machine(headers.get("host", "")):
        raise api_error(403, "foreign_host", "without tokens the gateway answers requests to localhost only")
    return ANONYMOUS


@lru_cache(maxsize=256)
def _names_this_machine(host: str) -> bool:
    """True if a `Host` header is empty or a name of loopback."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return not name or is_loopback(name)


def require_kind(principal: Principal, kind: str) -> None:
    """Raise `ApiError` 403 if the principal may not use a kind."""
    if not principal.may_use(kind):
        raise api_error(403, "forbidden_kind", f"the token {principal.name} may not send {kind}")


def require_options(
    principal: Principal, contract: type[Contract] | None, options: SendOptions, overflow: str | None
) -> None:
    """Raise `ApiError` 403 for a queue, id, priority or overflow policy that the principal may not choose."""
    queue, name = options.queue, principal.name
    own = None if contract is None else contract.queue
    if queue not in (None, own) and not principal.may_name(queue or ""):
        text = f"the token {name} may not name the queue {queue}: add it to `queues` of the token"
        raise api_error(403, "forbidden_queue", text)
    if overflow == "shed" and not principal.has_right("shed"):
        text = f"the token {name} may not throw out tasks (overflow=shed): add `shed` to its `rights`"
        raise api_error(403, "forbidden_overflow", text)
    if options.priority != 0 and not principal.has_right("priority"):
        text = f"the token {name} may not choose a priority: add `priority` to its `rights`"
        raise api_error(403, "forbidden_priority", text)
    if options.id is not None and not principal.owns_task(options.id):
        raise api_error(403, "forbidden_id", f"an id that the token {name} chooses begins with {name}:")


def require_task(principal: Principal, task: str) -> None:
    """Raise `ApiError` 403 for an id in the name space of another token, whether there is a task or not."""
    if not principal.owns_task(task):
        text = f"the ids of the tasks of the token {principal.name} begin with {principal.name}:"
        raise api_error(403, "forbidden_task", text)


#: How long it is cached that a token has its maximum of batches: a count costs the server.
FULL_SECONDS = 5.0


class BatchOwners:
    """The owners of batches, cached. One event loop uses it."""

    def __init__(self, store: Store, threads: ThreadPools) -> None:
        self._store = store
        self._threads = threads
        self._owners: OrderedDict[str, str | None] = OrderedDict()
        #: Token -> until when it has as many batches as it may.
        self._full_until: dict[str, float] = {}

    async def require_owner(self, principal: Principal, batch: str) -> None:
        """Raise `ApiError` 403 if another token opened the batch, or none did."""
        if principal.is_unrestricted:
            return
        if batch not in self._owners:
            try:
                summary = await self._threads.run_lookup(
                    principal.name, lambda: record.summary(self._store, batch)
                )
            except BrokerError as error:
                raise translate_error(error) from None
            self._owners[batch] = summary.owner
            while len(self._owners) > CACHED_OWNERS:
                self._owners.popitem(last=False)
        if self._owners[batch] != principal.name:
            text = f"{principal.name} did not open this batch: use the token that did, or one for every kind"
            raise api_error(403, "forbidden_batch", text)

    async def require_room(self, principal: Principal, max_batches: int) -> None:
        """Raise `ApiError` 429 if as many batches of the principal are kept as may be."""
        is_full = time.monotonic() < self._full_until.get(principal.name, 0.0)
        if not is_full:
            try:
                is_full = not await self._threads.run_lookup(
                    principal.name, lambda: record.has_room(self._store, principal.name, max_batches)
                )
            except BrokerError as error:
                raise translate_error(error) from None
            if is_full:
                self._full_until[principal.name] = time.monotonic() + FULL_SECONDS
        if is_full:
            text = f"{max_batches} batches of {principal.name} are kept, the most of one token (max_batches)"
            raise api_error(429, "too_many_batches", text, retry_after=60)

"""Let in who holds a token; where none is configured, whoever is on this machine."""

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from millpond.producer.gateway.problems import Refusal, refusal
from millpond.producer.gateway.tokens import ANYBODY, Holder, holder
from millpond.tasks.errors import SettingsError
from millpond.tasks.process.loopback import is_loopback
from millpond.tasks.settings import GatewayToken


def must_be_safe(host: str, tokens: Sequence[GatewayToken]) -> None:
    """Refuse to listen beyond this machine without tokens."""
    if not tokens and not is_loopback(host):
        raise SettingsError(
            f"the gateway does not listen on {host or 'every address'} without tokens: "
            "make one with `millpond gateway token NAME`, or leave out --host"
        )


def entering(tokens: Sequence[GatewayToken], headers: Headers) -> Holder:
    """Return who asks. Raises `Refusal` for nobody."""
    if not tokens:
        return _on_this_machine(headers)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    known = holder(tokens, token.strip()) if scheme.lower() == "bearer" else None
    if known is None:
        text = "send a token that the gateway knows: Authorization: Bearer …"
        fault = refusal(401, "unauthorized", text).fault
        raise Refusal(401, fault, {"WWW-Authenticate": "Bearer"})
    return known


def _on_this_machine(headers: Headers) -> Holder:
    """Refuse a page of the web that a name of its own leads here (DNS rebinding)."""
    if not _names_this_machine(headers.get("host", "")):
        raise refusal(403, "foreign_host", "without tokens the gateway answers to localhost alone")
    return ANYBODY


@lru_cache(maxsize=256)
def _names_this_machine(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return not name or is_loopback(name)


def must_send(asks: Holder, kind: str) -> None:
    """Refuse a kind that is closed to a holder."""
    if not asks.may(kind):
        raise refusal(403, "forbidden_kind", f"this token does not let {asks.name} send {kind}")

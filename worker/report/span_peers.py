"""The peers that OpenTelemetry's instrumentations name: more precise than an address, if they are installed.

A client span that is open in a slot's thread names the dependency that it calls. If none is open, the
kernel's address is used.
"""

import sys
import threading
from collections.abc import Mapping
from typing import Any

from millpond.worker.report.noted_calls import CALLING

#: The attributes of a client span that name its peer, the clearest first, and its port.
_PEERS = ("peer.service", "server.address", "net.peer.name", "db.system.name", "db.system")
_PORTS = ("server.port", "net.peer.port")

#: `SpanKind.CLIENT` and `SpanKind.PRODUCER` of OpenTelemetry.
_OUTWARDS = ("CLIENT", "PRODUCER")


class SpanPeers:
    """The part of a span processor that notes the peers of open client spans by thread."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[int, str | None]] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002
        """Note the peer of a client span."""
        if getattr(span.kind, "name", "") not in _OUTWARDS:
            return
        if (name := peer_of(span.attributes or {})) is not None:
            thread = threading.get_ident()
            self._before[span.context.span_id] = thread, CALLING.get(thread)
            CALLING[thread] = name

    def on_end(self, span: Any) -> None:
        """Forget the peer of a span that has ended."""
        thread, before = self._before.pop(span.context.span_id, (0, None))
        if before is not None:
            CALLING[thread] = before
        elif thread:
            CALLING.pop(thread, None)


def peer_of(attributes: Mapping[str, Any]) -> str | None:
    """Return the name of the peer in a span's attributes: an address with its port, or a system."""
    name = next((str(attributes[each]) for each in _PEERS if attributes.get(each)), None)
    port = next((attributes[each] for each in _PORTS if attributes.get(each)), None)
    system = attributes.get("db.system.name") or attributes.get("db.system")
    if name is None:
        return None
    where = f"{name}:{port}" if port is not None and ":" not in name else name
    return f"{system} {where}" if system and system != name else where


def note_client_peers() -> None:
    """Note the peers of client spans from now on, once for each provider.

    Does nothing if no SDK is set up.
    """
    trace, sdk = sys.modules.get("opentelemetry.trace"), sys.modules.get("opentelemetry.sdk.trace")
    if trace is None or sdk is None:
        return
    provider = trace.get_tracer_provider()
    if isinstance(provider, sdk.TracerProvider) and not getattr(provider, "millpond_peers", False):
        provider.millpond_peers = True
        provider.add_span_processor(type("Peers", (SpanPeers, sdk.SpanProcessor), {})())

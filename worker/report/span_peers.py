"""Record the peers that handlers call, by the client spans of OpenTelemetry's instrumentations.

A client span that is open in a slot's thread names the dependency that the slot calls, more precisely than
the address that the kernel reports. Without an open span that address is used.
"""

import sys
import threading
from collections.abc import Mapping
from typing import Any

from millpond.worker.report.recorded_calls import CALLED_PEERS

#: The attributes of a client span that name its peer, the clearest first, and its port.
_PEERS = ("peer.service", "server.address", "net.peer.name", "db.system.name", "db.system")
_PORTS = ("server.port", "net.peer.port")

#: `SpanKind.CLIENT` and `SpanKind.PRODUCER` of OpenTelemetry.
_OUTWARDS = ("CLIENT", "PRODUCER")


class SpanPeers:
    """The part of a span processor that records the peers of open client spans, by thread."""

    def __init__(self) -> None:
        #: The thread of each open client span, and the peer that was recorded for the thread before.
        self._open_spans: dict[int, tuple[int, str | None]] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:  # noqa: ARG002
        """Record the peer of a client span. A span of another kind is ignored."""
        if getattr(span.kind, "name", "") not in _OUTWARDS:
            return
        if (name := peer_of(span.attributes or {})) is not None:
            thread = threading.get_ident()
            self._open_spans[span.context.span_id] = thread, CALLED_PEERS.get(thread)
            CALLED_PEERS[thread] = name

    def on_end(self, span: Any) -> None:
        """Record again the peer of the span around the one that has ended, or none."""
        thread, outer_peer = self._open_spans.pop(span.context.span_id, (0, None))
        if outer_peer is not None:
            CALLED_PEERS[thread] = outer_peer
        elif thread:
            CALLED_PEERS.pop(thread, None)


def peer_of(attributes: Mapping[str, Any]) -> str | None:
    """Return the name of a span's peer by its attributes: `postgresql db:5432`, `db:5432` or `redis`.

    Return None if they name no peer.
    """
    name = next((str(attributes[key]) for key in _PEERS if attributes.get(key)), None)
    port = next((attributes[key] for key in _PORTS if attributes.get(key)), None)
    system = attributes.get("db.system.name") or attributes.get("db.system")
    if name is None:
        return None
    address = f"{name}:{port}" if port is not None and ":" not in name else name
    return f"{system} {address}" if system and system != name else address


def record_client_peers() -> None:
    """Record the peers of client spans from now on, by a span processor of OpenTelemetry's present provider.

    Does nothing if the provider has the processor, or if no SDK is set up.
    """
    trace, sdk = sys.modules.get("opentelemetry.trace"), sys.modules.get("opentelemetry.sdk.trace")
    if trace is None or sdk is None:
        return
    provider = trace.get_tracer_provider()
    if isinstance(provider, sdk.TracerProvider) and not getattr(provider, "millpond_peers", False):
        provider.millpond_peers = True
        provider.add_span_processor(type("Peers", (SpanPeers, sdk.SpanProcessor), {})())

"""Serve the gateway until SIGTERM, then accept no connection and finish open requests by the drain deadline.

A second signal ends it at once.
"""

import asyncio
import contextlib
import gc
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from millpond.broker.cluster import check_cluster_at_start
from millpond.producer.client import Client
from millpond.producer.gateway.acceptor import Acceptor
from millpond.producer.gateway.app import application, load_contracts
from millpond.producer.gateway.auth import check_address
from millpond.producer.gateway.connections import BoundedConnection, ConnectionLimits, raise_open_file_limit
from millpond.producer.gateway.loop_shares import LoopShares
from millpond.producer.gateway.middleware import RequestGuard
from millpond.producer.gateway.priority_selector import BackgroundThrottle, PrioritySelector
from millpond.producer.gateway.request_metrics import RequestMeter
from millpond.producer.gateway.routes import send
from millpond.producer.gateway.state import State
from millpond.tasks.errors import StartError
from millpond.tasks.process.configured_broker import require_broker_url
from millpond.tasks.settings import Settings

_KEEP_ALIVE_SECONDS = 30
_BACKLOG = 2048
#: The thresholds of the garbage collection: few objects at once, and old objects seldom.
_GC_THRESHOLDS = (700, 3, 100)
#: How long a thread may keep the event loop waiting for the interpreter. Python's default is 5 ms.
_SWITCH_SECONDS = 0.0005


def serve(settings: Settings, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `on_ready` is called with the URL. Port 0 is any free port.

    Raises `SettingsError`, `BadBrokerUrl` or `StartError`.
    """
    check_address(host, settings.gateway.tokens)
    check_cluster_at_start(require_broker_url(settings), **settings.broker_options)
    load_contracts(settings.gateway.contracts)
    raise_open_file_limit(settings.gateway)
    with _open_socket(host, port) as listening:
        throttle = BackgroundThrottle()
        selector = PrioritySelector(throttle) if hasattr(select, "epoll") else None
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
            runner.run(
                _serve_socket(
                    settings,
                    listening,
                    LoopShares(throttle),
                    selector,
                    lambda: on_ready(_url_of(listening)),
                )
            )


async def _serve_socket(
    settings: Settings,
    listening: socket.socket,
    shares: LoopShares,
    selector: PrioritySelector | None,
    on_ready: Callable[[], None],
) -> None:
    """Serve on a listening socket until a signal, then finish within the drain deadline."""
    state = State(settings, Client(settings=settings))
    endpoints = send.endpoints(state)
    guarded = RequestGuard(application(state), settings.gateway, endpoints, shares)
    metered = RequestMeter(guarded, state.metrics, endpoints, shares.charge_refusal)
    server = _Server(metered, ConnectionLimits(settings.gateway, shares, selector), settings.drain_seconds)

    def stop() -> None:
        """Finish the open requests. Called a second time, end them at once."""
        server.force_exit = server.should_exit
        server.should_exit = True
        state.begin_stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    _tune_interpreter()
    if selector is not None:
        selector.start()
    on_ready()
    try:
        await server.serve([listening])
    finally:
        state.close()


def _tune_interpreter() -> None:
    """Shorten the pauses of the event loop: waits for other threads, and garbage collections.

    Every object that exists now lives as long as the process. A full collection of them would stop all
    connections for a tenth of a second.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


class _Server(uvicorn.Server):
    """Accepts connections by an `Acceptor`, and leaves signals to `_serve_socket`.

    Uvicorn would raise the signals again at its end, so that the exit code would not be 0.
    """

    def __init__(self, app: ASGIApp, limits: ConnectionLimits, drain_seconds: float) -> None:
        config = uvicorn.Config(
            app,
            http=partial(BoundedConnection, limits),  # type: ignore[arg-type]
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,  # type: ignore[arg-type]
        )
        super().__init__(config)
        self._limits = limits
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start uvicorn without sockets of its own, and accept the connections of these sockets."""
        await super().startup([])
        limits = self._limits
        self._acceptors = [
            Acceptor(
                listener,
                self._make_protocol,
                max_silent=limits.max_silent,
                max_silent_seconds=limits.header_seconds,
            )
            for listener in sockets or ()
        ]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no further connection, and finish the open requests."""
        for acceptor in self._acceptors:
            acceptor.close()
        await super().shutdown(sockets)

    def _make_protocol(self) -> asyncio.Protocol:
        """Return the protocol of a new connection, made as uvicorn makes it."""
        protocol_class: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = protocol_class(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            _loop=asyncio.get_running_loop(),
        )
        return protocol

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signal."""
        yield


def _open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises `StartError` if the address cannot be used.

    The socket is declared as TCP, since asyncio turns Nagle's algorithm off only for such sockets. With it, a
    response in two writes would wait 40 ms for the acknowledgement of the first.
    """
    try:
        (family, *_), *_ = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"the gateway cannot listen on {host}:{port}: {reason}. Try another --port, or --port 0 for any"
        ) from None
    return listening


def _url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

"""Serve the gateway until SIGTERM: then take nothing new, finish what is under way by the deadline.

A second signal does not wait.
"""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from millpond.producer.client import Client
from millpond.producer.gateway.app import application, load_contracts
from millpond.producer.gateway.auth import must_be_safe
from millpond.producer.gateway.middleware import Guard
from millpond.producer.gateway.request_metrics import Measured
from millpond.producer.gateway.routes import send
from millpond.producer.gateway.state import Gate
from millpond.tasks.errors import StartError
from millpond.tasks.process.running_up import configured_broker
from millpond.tasks.settings import Settings

_KEEP_ALIVE_SECONDS = 30
_BACKLOG = 2048


def serve(configured: Settings, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `on_ready` gets the URL. Port 0 takes any that is free.

    Raises `SettingsError` or `StartError`.
    """
    must_be_safe(host, configured.gateway.tokens)
    configured_broker(configured)
    load_contracts(configured.gateway.contracts)
    with _listening(host, port) as taken:
        asyncio.run(_serve(configured, taken, lambda: on_ready(_url(taken))))


async def _serve(configured: Settings, taken: socket.socket, on_ready: Callable[[], None]) -> None:
    gate = Gate(configured, Client(settings=configured))
    singles = send.singles(gate)
    guarded = Guard(application(gate), configured.gateway, singles)
    server = _Server(
        uvicorn.Config(
            Measured(guarded, gate.figures, singles),
            http="httptools",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
            limit_concurrency=configured.gateway.max_connections,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=configured.drain_seconds,  # type: ignore[arg-type]
        )
    )

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True
        gate.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    # What is there now lives as long as the process. Looking through all of it for garbage makes everybody
    # who is connected wait for a tenth of a second.
    gc.collect()
    gc.freeze()
    on_ready()
    try:
        await server.serve([taken])
    finally:
        gate.close()


class _Server(uvicorn.Server):
    """Leave signals to `_serve`: uvicorn would raise them again in the end, which is no exit code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    asyncio turns Nagle's algorithm off for sockets that say they are TCP alone: an answer in two writes would
    wait 40 ms for the acknowledgement of the first.
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


def _url(taken: socket.socket) -> str:
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

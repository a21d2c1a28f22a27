"""A proxy between a client and a server: a network that fails on demand."""

import selectors
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic


class Proxy:
    """Passes bytes on with a delay. It can close all connections, or drop everything without an error.

    A connection that was open while the proxy dropped everything stays dead after `heal`, as after a firewall
    has forgotten it. New connections work.
    """

    def __init__(self, port: int, delay_seconds: float = 0.0) -> None:
        self._target = ("127.0.0.1", port)
        self._delay_seconds = delay_seconds
        self._late: deque[tuple[float, socket.socket, bytes]] = deque()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._swallowing = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The URL of the server by way of this proxy."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            for each in tuple(self._pairs):
                self._drop(each)

    def swallow(self) -> None:
        """Pass nothing on, without an error. Connections can still be opened."""
        with self._lock:
            self._swallowing = True
            for each in self._pairs:
                with suppress(KeyError):
                    self._selector.unregister(each)

    def heal(self) -> None:
        """Pass on the bytes of new connections again."""
        with self._lock:
            self._swallowing = False

    def close(self) -> None:
        """Stop the proxy and close all connections."""
        self._closed.set()
        self._thread.join(5)
        self.cut()
        self._listener.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            for key, _ in self._selector.select(0.001 if self._late else 0.05):
                with self._lock:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._pairs:
                        self._pass_on(key.fileobj)
            while self._late and self._late[0][0] <= monotonic():
                _, target, data = self._late.popleft()
                with self._lock, suppress(OSError):
                    target.sendall(data)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        try:
            far = socket.create_connection(self._target, timeout=2)
        except OSError:
            near.close()
            return
        self._pairs |= {near: far, far: near}
        if not self._swallowing:
            self._selector.register(near, selectors.EVENT_READ)
            self._selector.register(far, selectors.EVENT_READ)

    def _pass_on(self, source: socket.socket) -> None:
        if self._swallowing:
            return
        try:
            data = source.recv(65536)
            if self._delay_seconds and data:
                self._late.append((monotonic() + self._delay_seconds, self._pairs[source], data))
                return
            self._pairs[source].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(source)

    def _drop(self, one: socket.socket) -> None:
        other = self._pairs.pop(one, None)
        for each in (one, other):
            if each is not None:
                self._pairs.pop(each, None)
                with suppress(KeyError, ValueError):
                    self._selector.unregister(each)
                each.close()


@contextmanager
def proxy(port: int, delay_seconds: float = 0.0) -> Iterator[Proxy]:
    """Run a proxy for a port of loopback for the length of a block."""
    made = Proxy(port, delay_seconds)
    try:
        yield made
    finally:
        made.close()

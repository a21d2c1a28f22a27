"""Load an HTTP server over several connections. Each sends a request when its last one has a response."""

import asyncio
import time
from dataclasses import dataclass
from statistics import median, quantiles

BODY = b'{"n": 7}'


@dataclass(frozen=True)
class Load:
    """The measured figures of a server under load."""

    answered: int
    per_second: float
    median_ms: float
    p99_ms: float


def load(port: int, *, connections: int, seconds: float) -> Load:
    """Send to `/send/squares.square` for so many seconds. Raises `RuntimeError` for a status but 202."""
    return asyncio.run(_load(port, connections, seconds))


async def _load(port: int, connections: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    senders = [_Sender(port, until) for _ in range(connections)]
    for sender in senders:
        await loop.create_connection(lambda sender=sender: sender, "127.0.0.1", port)
    started = time.perf_counter()
    await asyncio.gather(*(sender.done for sender in senders))
    took = [ms for sender in senders for ms in sender.took_ms]
    per_second = len(took) / (time.perf_counter() - started)
    return Load(len(took), per_second, median(took), quantiles(took, n=100)[98])


class _Sender(asyncio.Protocol):
    def __init__(self, port: int, until: float) -> None:
        head = (
            f"POST /send/squares.square HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json"
        )
        self._request = f"{head}\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
        self._until = until
        self._seen = b""
        self.took_ms: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, end, body = self._seen.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]):
            return
        if not head.startswith(b"HTTP/1.1 202"):
            self.done.set_exception(RuntimeError(self._seen[:200].decode()))
            return
        self.took_ms.append((time.perf_counter() - self._at) * 1000)
        self._seen = b""
        if time.perf_counter() < self._until:
            self._send()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        self._at = time.perf_counter()
        self._transport.write(self._request)

"""One caller cannot starve the rest: headers, silent and slow connections, and look-ups are bounded."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from millpond.broker import limits
from millpond.broker.batches import record
from millpond.broker.connection import Store
from millpond.broker.keys import batch_key
from millpond.producer.gateway.tokens import hash_token
from millpond.tasks.settings import Gateway, GatewayToken, Settings
from tests.conftest import Eventually
from tests.harness.gateway_process import Answer, GatewayProcess, run_gateway
from tests.scenarios.load.abuse import CONTAINER_BYTES, abused

SHOP, RIVAL, NARROW = "Bearer shop", "Bearer rival", "Bearer narrow"
BATCHES = 12
CONNECTIONS = 60
MIB = 1024**2


@pytest.fixture(scope="module")
def gateway(module_url: str) -> Iterator[GatewayProcess]:
    """Run a gateway for two tokens, with room for 60 connections that may be idle for a second and a half."""
    tokens = tuple(
        GatewayToken(name=name, hash=hash_token(name), kinds=("squares.*",))
        for name in ("shop", "rival", "narrow")
    )
    sizes = Gateway(
        tokens=tokens, idle_seconds=1.5, max_connections=CONNECTIONS, max_streams=4, max_batches=BATCHES
    )
    with run_gateway(Settings(broker_url=module_url, gateway=sizes)) as started:
        yield started


def connect(gateway: GatewayProcess) -> socket.socket:
    """Open a connection."""
    where = urlsplit(gateway.url)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=20)


def is_well(gateway: GatewayProcess) -> bool:
    """True if probes and a well-behaved client are answered."""
    probes = [gateway.ask("GET", f"/health/{each}").status for each in ("live", "ready")]
    sent = gateway.ask("POST", "/send/squares.square", {"n": 1}, authorization=RIVAL)
    return [*probes, sent.status] == [200, 200, 202]


def until_closed(open_: socket.socket, piece: bytes, most: int) -> int:
    """Send a piece again and again until the connection ends; return the number of bytes that were sent."""
    sent = 0
    with suppress(OSError):
        while sent < most:
            open_.sendall(piece)
            sent += len(piece)
    return sent


def begun(*lines: str) -> bytes:
    """Return the begin of a request that may send."""
    head = ("POST /send/squares.square HTTP/1.1", "Host: x", f"Authorization: {SHOP}", *lines)
    return "\r\n".join(head).encode()


CHUNKED = ("Content-Type: application/json", "Transfer-Encoding: chunked", "", "")


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /" + b"a" * 10, b"a" * 8192),
        (begun("X-Long: a"), b"a" * 8192),
        (begun(""), b"X-Many: a\r\n" * 800),
        (begun(*CHUNKED) + b"5;", b"a" * 8192),
        (begun(*CHUNKED) + b"0\r\nX-Trailer: ", b"a" * 8192),
        (begun(*CHUNKED) + b"0\r\n", b"X-Many: a\r\n" * 800),
    ],
    ids=["address", "one line", "many lines", "extension of a chunk", "trailer", "many trailers"],
)
def test_a_header_without_end_ends_its_connection(
    gateway: GatewayProcess, begin: bytes, piece: bytes
) -> None:
    """A header or trailer beyond its bound ends the connection; the gateway's memory does not grow."""
    process = psutil.Process(gateway.process.pid)
    before = process.memory_info().rss
    with connect(gateway) as open_:
        open_.sendall(begin)
        # The system holds some megabytes on their way: the gateway has closed long before.
        assert until_closed(open_, piece, 64 * MIB) < 32 * MIB
    assert process.memory_info().rss - before < 16 * MIB
    assert is_well(gateway)


def test_a_long_header_that_is_allowed_arrives(gateway: GatewayProcess) -> None:
    """Fifty kilobytes of headers, and a body in pieces of a byte, are read."""
    with connect(gateway) as open_:
        open_.sendall(begun(f"X-Long: {'a' * 50_000}", *CHUNKED))
        for byte in b'{"n": 1}':
            open_.sendall(b"1\r\n" + bytes([byte]) + b"\r\n")
        open_.sendall(b"0\r\n\r\n")
        assert b" 202 " in open_.recv(1000)


def test_silent_connections_end_and_keep_nobody_out(gateway: GatewayProcess) -> None:
    """Five times as many silent connections as there may be: probes and others are answered, and all of them
    end."""
    with ExitStack() as open_:
        silent = [open_.enter_context(connect(gateway)) for _ in range(5 * CONNECTIONS)]
        assert is_well(gateway)
        for each in silent:
            with suppress(ConnectionResetError):
                assert each.recv(1) == b""


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "second on its connection"])
def test_a_header_that_comes_slowly_is_given_up(gateway: GatewayProcess, is_first: bool) -> None:
    """A header has a time, also that of a later request on a connection, however many bytes come."""
    with connect(gateway) as open_:
        if not is_first:
            open_.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b" 200 " in open_.recv(1000)
        open_.sendall(b"GET /health/live HTTP/1.1\r\n")
        started = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - started < 20:
                open_.sendall(b"X")
                open_.settimeout(0.1)
                with suppress(TimeoutError):
                    if open_.recv(1) == b"":
                        break
        assert time.monotonic() - started < 10


def test_one_token_holds_half_of_the_requests_at_most(gateway: GatewayProcess) -> None:
    """Requests that hang are refused beyond their token's share; the requests of others are answered."""
    with ExitStack() as open_:
        hanging = []
        for _ in range(CONNECTIONS - 5):
            hanging.append(open_.enter_context(connect(gateway)))
            hanging[-1].sendall(begun("Content-Type: application/json", "Content-Length: 8", "", ""))
        assert is_well(gateway)
        statuses = Counter(each.recv(12) for each in hanging)
    assert set(statuses) == {b"HTTP/1.1 503", b"HTTP/1.1 408"}
    assert statuses[b"HTTP/1.1 503"] >= CONNECTIONS // 3


def test_one_token_holds_half_of_the_streams_at_most(gateway: GatewayProcess) -> None:
    """Of four streams of results a token opens two; another token still opens one."""

    def batch(token: str) -> str:
        return str(gateway.ask("POST", "/batches", authorization=token).headers["Location"])

    with ExitStack() as open_:
        statuses = []
        for token in (SHOP, SHOP, SHOP, RIVAL):
            connection = gateway.connect()
            open_.callback(connection.close)
            connection.request("GET", f"{batch(token)}/results", headers={"Authorization": token})
            statuses.append(connection.getresponse().status)
    assert statuses == [200, 200, 503, 200]


def test_a_token_keeps_so_many_batches_and_no_more(gateway: GatewayProcess, module_store: Store) -> None:
    """At the bound a batch is refused, another token opens one, and one that is forgotten makes room."""

    def open_(token: str) -> Answer:
        return gateway.ask("POST", "/batches", authorization=token)

    opened = [open_(NARROW) for _ in range(BATCHES)]
    assert {each.status for each in opened} == {201}
    refused = open_(NARROW)
    assert (refused.status, refused.json["error"]["code"]) == (429, "too_many_batches")
    assert int(refused.headers["Retry-After"]) > 0
    assert open_(RIVAL).status == 201
    assert not record.may_open_batch(module_store, "narrow", BATCHES)
    module_store.client.delete(batch_key(opened[3].json["id"]))
    assert record.may_open_batch(module_store, "narrow", BATCHES)
    assert not record.may_open_batch(module_store, "narrow", BATCHES - 1)


WAITING = 60_000


@pytest.mark.slow
def test_look_ups_of_unknown_tasks_keep_nobody_waiting(
    gateway: GatewayProcess, module_store: Store, eventually: Eventually
) -> None:
    """While one token asks for tasks that never were among many that wait, a probe and another token are
    answered."""
    limits.declare_limits(module_store, "default", {"bound": 10 * WAITING}, authoritative=True)
    gateway.ask("POST", "/send/squares.square", {"n": 1}, authorization=RIVAL)
    (message,) = module_store.client.lrange("default", 0, 0)
    for _ in range(WAITING // 1000):
        module_store.client.lpush("default", *[message] * 1000)
    stop = threading.Event()
    asked: list[float] = []

    def ask() -> None:
        while not stop.is_set():
            started = time.monotonic()
            answer = gateway.ask("GET", "/tasks/shop:never-sent", authorization=SHOP)
            asked.append(time.monotonic() - started)
            assert answer.status == 404

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for each in threads:
        each.start()
    try:
        eventually(lambda: len(asked) >= 6)
        took = []
        for _ in range(20):
            started = time.monotonic()
            assert is_well(gateway)
            took.append(time.monotonic() - started)
    finally:
        stop.set()
        for each in threads:
            each.join()
    assert sorted(took)[10] < 0.5, (sorted(took), sorted(asked))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_client_is_served_beside_seven_abuses(tmp_path: Path) -> None:
    """Beside seven abuses of one token, a client of another token is served well.

    Its requests cost the gateway little more processor time than in quiet, and the gateway's memory stays
    within the container's. Processor time does not depend on a busy machine: without priorities it is 13
    times as much.
    """
    seen = abused(tmp_path, seconds=24, turns=4)
    quiet, beside = seen.p99s(1)
    assert seen.failed == 0
    assert beside < 5 * quiet, (quiet, beside)
    assert len(seen.abused) > len(seen.quiet) / 4
    assert seen.most_bytes < CONTAINER_BYTES

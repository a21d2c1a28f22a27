"""A broker behind TLS: producers and workers encrypt connections, and check the server's certificate."""

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from millpond.broker.connection import connect
from millpond.broker.server import server_time_ms
from millpond.producer.client import Client
from millpond.tasks.app import celery_app
from millpond.tasks.errors import BrokerAway
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import embedded
from tests.harness.certificates import tls_lines, write_certificates
from tests.harness.own_server import OwnServer, free_port, run_own_server

#: A TLS record of a handshake.
HANDSHAKE = b"\x16\x03"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a certificate for 127.0.0.1, its key, and the authority that issued it."""
    folder = tmp_path_factory.mktemp("tls")
    write_certificates(folder)
    return folder


@pytest.fixture(scope="module")
def encrypted(authority: Path, program: Callable[[str], str]) -> Iterator[str]:
    """Run a server that speaks TLS and nothing else; give its URL."""
    with run_own_server(encrypted_server(authority, program)) as server:
        yield server.url


def encrypted_server(authority: Path, program: Callable[[str], str], *lines: str) -> OwnServer:
    """Return a server, not yet started, that speaks TLS alone, with more lines of its configuration."""
    binary = program("redis-server")
    server = OwnServer(binary, authority, scheme="rediss", port=free_port())
    server.options = {"ssl_ca_certs": str(authority / "ca.pem")}
    server.lines = ["port 0", *tls_lines(authority, server.port), *lines]
    return server


def test_producer_and_worker_meet_through_tls(encrypted: str, authority: Path) -> None:
    """With rediss:// and the authority named in the URL, a batch is done and its results come back."""
    settings = Settings(broker_url=f"{encrypted}?ssl_ca_certs={authority}/ca.pem", drain_seconds=5)
    with embedded(settings, pools=["default"]), Client(settings=settings) as client:
        with client.batch() as batch:
            batch.send_many(Square(n=n) for n in range(10))
        assert sorted(result.value for result in batch.results()) == [n * n for n in range(10)]


def test_a_certificate_of_somebody_else_is_refused(encrypted: str) -> None:
    """A certificate that no trusted authority has signed is refused by producers and workers."""
    settings = Settings(broker_url=encrypted)
    with Client(settings=settings) as client, pytest.raises(BrokerAway, match="CERTIFICATE_VERIFY_FAILED"):
        client.send(Square(n=1))
    with celery_app(settings).connection_for_read() as connection, pytest.raises(OperationalError):
        connection.ensure_connection(max_retries=1, interval_start=0)


def test_the_least_version_of_tls_is_the_urls(authority: Path, program: Callable[[str], str]) -> None:
    """A server that speaks TLS 1.2 alone is reached with `ssl_min_version=TLSv1.2`, not with TLSv1.3."""
    with run_own_server(encrypted_server(authority, program, "tls-protocols TLSv1.2")) as server:
        url = f"{server.url}?ssl_ca_certs={authority}/ca.pem&ssl_min_version="
        with closing(connect(f"{url}TLSv1.2")) as store:
            assert server_time_ms(store) > 0
        with closing(connect(f"{url}TLSv1.3")) as store, pytest.raises(BrokerAway, match=r"(?i)version"):
            server_time_ms(store)


def test_a_worker_logs_in_through_tls_or_not_at_all() -> None:
    """The first bytes to a rediss:// broker begin a handshake; the log names it by that scheme."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:
        server.settimeout(20)
        first = threads.submit(_first_bytes, server)
        settings = Settings(
            broker_url=f"rediss://:secret@127.0.0.1:{server.getsockname()[1]}/0", broker_timeout_seconds=1
        )
        with celery_app(settings).connection_for_read() as connection:
            assert connection.as_uri().startswith("rediss://:**@127.0.0.1:")
            with suppress(OperationalError):
                connection.ensure_connection(max_retries=1, interval_start=0)
        assert first.result()[:2] == HANDSHAKE


def _first_bytes(server: socket.socket) -> bytes:
    peer, _ = server.accept()
    with peer:
        peer.settimeout(20)
        return peer.recv(4096)

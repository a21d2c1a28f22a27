"""Every program understands every way of writing a broker's URL: each speaks to a real server by it."""

import json
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path
from socket import gethostname
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import pytest

from millpond.broker.connection import connect
from millpond.producer.client import Client
from millpond.tasks.app import celery_app
from millpond.tasks.schedule import ScheduleSettings
from millpond.tasks.settings import Settings, child_environment
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import embedded
from tests.conftest import Eventually
from tests.harness.certificates import tls_lines, write_certificates
from tests.harness.forked_commands import Done, ForkedCommands
from tests.harness.gateway_process import run_gateway
from tests.harness.own_server import OwnServer, free_port, run_own_server
from tests.harness.run_to_end import run_to_end

#: Percent-encoded in a URL, and as it is.
PASSWORD, ENCODED = "p@ss/w:%?;&", "p%40ss%2Fw%3A%25%3F%3B%26"
OF_SENTINEL, SENTINEL_ENCODED = "of@sentinels", "of%40sentinels"

#: Ways to write the URL of one server, with the places that a test fills in.
URLS = {
    "percent-encoded": "redis://:{password}@127.0.0.1:{port}/1",
    "user and option": "redis://default:{password}@localhost:{port}/?db=1&socket_timeout=4",
    "password as option": "redis://127.0.0.1:{port}/1?password={password}",
    "redis+socket": "redis+socket://:{password}@{socket}?virtual_host=1",
    "unix": "unix://:{password}@{socket}?db=1",
    "CERT_REQUIRED": "rediss://:{password}@127.0.0.1:{tls}/1?ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={ca}",
    "required": "rediss://:{password}@127.0.0.1:{tls}/1?ssl_cert_reqs=required&ssl_ca_certs={ca}",
    "authority alone": "rediss://:{password}@127.0.0.1:{tls}/1?ssl_ca_certs={ca}",
    "CERT_NONE": "rediss://:{password}@127.0.0.1:{tls}/1?ssl_cert_reqs=CERT_NONE",
    "none": "rediss://:{password}@127.0.0.1:{tls}/1?ssl_cert_reqs=none",
    "certificate of the client": "rediss://:{password}@127.0.0.1:{tls}/1?ssl_ca_certs={ca}"
    "&ssl_certfile={cert}&ssl_keyfile={key}",
    "sentinel": "sentinel://:{password}@127.0.0.1:{sentinel}/orders/1?sentinel_password={of_sentinel}",
    "sentinels, the first away": "sentinel://:{password}@127.0.0.1:{nobody};"
    "sentinel://:{password}@127.0.0.1:{sentinel}/orders/1?sentinel_password={of_sentinel}",
    "name as option": "sentinel://:{password}@127.0.0.1:{nobody};127.0.0.1:{sentinel}/1"
    "?master_name=orders&sentinel_password={of_sentinel}",
    "encrypted sentinel": "sentinel://:{password}@127.0.0.1:{encrypted_sentinel}/encrypted/1"
    "?ssl_ca_certs={ca}&sentinel_password={of_sentinel}",
}
#: Those with which whole programs are run.
RUN_WHOLE = ("redis+socket", "CERT_REQUIRED", "sentinels, the first away", "encrypted sentinel")


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, program: Callable[[str], str]
) -> Iterator[dict[str, Any]]:
    """Run a server that can be reached in every way, and two sentinels over it; give the parts of a URL."""
    binary = program("redis-server")
    folder = tmp_path_factory.mktemp("urls")
    write_certificates(folder)
    with ExitStack() as stack:
        server = OwnServer(binary, folder / "server", port=free_port(), options={"password": PASSWORD})
        tls, encrypted_sentinel = free_port(), free_port()
        socket = folder / "r.sock"
        server.lines = [f"requirepass {PASSWORD}", f"unixsocket {socket}", *tls_lines(folder, tls)]
        stack.enter_context(run_own_server(server))
        sentinels = []
        for name, port, more in (
            ("orders", server.port, []),
            ("encrypted", tls, [*tls_lines(folder, encrypted_sentinel), "tls-replication yes"]),
        ):
            lines = [
                f"requirepass {OF_SENTINEL}",
                *more,
                f"sentinel monitor {name} 127.0.0.1 {port} 1",
                f"sentinel auth-pass {name} {PASSWORD}",
            ]
            sentinel = OwnServer(binary, folder / f"sentinel-{name}", lines, port=free_port())
            sentinel.options = {"password": OF_SENTINEL}
            stack.enter_context(run_own_server(sentinel, "--sentinel"))
            sentinels.append(sentinel)
        yield {
            "password": ENCODED,
            "port": server.port,
            "tls": tls,
            "socket": socket,
            "ca": folder / "ca.pem",
            "cert": folder / "cert.pem",
            "key": folder / "key.pem",
            "sentinel": sentinels[0].port,
            "encrypted_sentinel": encrypted_sentinel,
            "of_sentinel": SENTINEL_ENCODED,
            "nobody": free_port(),
        }


@pytest.fixture(params=URLS)
def each(request: pytest.FixtureRequest, places: dict[str, Any]) -> str:
    """Return the URL, in each of the ways."""
    return URLS[request.param].format(**places)


def _database(client: Any) -> int:
    """Return the database that a client works on, by the server's word."""
    return int(client.client_info()["db"])


def test_the_client_and_celery_connect_by_every_url(each: str) -> None:
    """Client, and Celery's connection by its blocking and its watched pool, reach the same database."""
    with closing(connect(each)) as store:
        assert _database(store.client) == 1
    with celery_app(Settings(broker_url=each)).connection_for_read() as connection:
        channel = connection.default_channel
        assert _database(channel.store.client) == 1
        assert _database(channel.client) == 1
        assert connection.transport.as_uri("").count("**") >= 1 or "password=" in each
        assert ENCODED not in connection.as_uri()


#: A user's own program: nothing of Millpond but the scheme of its broker's URL.
STOCK = """
import json, sys
from celery import Celery

for url in sys.argv[1:]:
    app = Celery(broker=url, set_as_current=False)
    with app.connection_for_write() as connection:
        database = connection.default_channel.store.client.client_info()["db"]
        again = connection.clone()
        again.default_channel.store.client.ping()
        shown = [connection.info(), repr(connection), again.as_uri(), app.conf.table(censored=True)]
    shown[0].pop("password")
    print(json.dumps([url, int(database), repr(shown)]), flush=True)
"""


def test_a_stock_celery_application_connects_by_every_url(places: dict[str, Any]) -> None:
    """A URL that begins with `millpond` is enough: it is parsed alike, and Celery shows no password."""
    urls = [url.format(**places) for url in URLS.values()]
    named = [
        url.replace("redis://", "millpond://") if url.startswith("redis://") else f"millpond+{url}"
        for url in urls
    ]
    done = run_to_end([sys.executable, "-P", "-c", STOCK, *named])
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(url, database) for url, database, _shown in answers] == [(url, 1) for url in named]
    for url, _database, shown in answers:
        assert not any(secret in shown for secret in (ENCODED, PASSWORD, OF_SENTINEL)), url


def test_a_failure_keeps_the_transport(places: dict[str, Any]) -> None:
    """With two sentinels that are both away, a connection that failed is tried again by our transport."""
    url = "sentinel://:{password}@127.0.0.1:{nobody};sentinel://:{password}@127.0.0.1:{nobody}/orders/1"
    app = celery_app(Settings(broker_url=url.format(**places), broker_timeout_seconds=1))
    with app.connection_for_read() as connection:
        with pytest.raises(connection.connection_errors):
            connection._ensure_connection(max_retries=2, interval_start=0, reraise_as_library_errors=False)
        assert type(connection.transport).__module__ == "millpond.broker.celery.transport"


def test_the_command_line_speaks_to_every_url(each: str, commands: ForkedCommands) -> None:
    """`millpond status` shows the queues."""
    done = _millpond(commands, ["status", "--json"], Settings(broker_url=each))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("way", RUN_WHOLE)
def test_whole_programs_run_by_a_url(way: str, places: dict[str, Any], eventually: Eventually) -> None:
    """Worker, scheduler, gateway, Flower and client meet, and Flower shows it all."""
    url, name = URLS[way].format(**places), f"s{uuid4().hex[:8]}"
    every = ScheduleSettings.model_validate({"kind": "squares.square", "every": "1s", "fields": {"n": 3}})
    settings = Settings(
        broker_url=url,
        key_prefix=f"{name}:",
        drain_seconds=5,
        schedule={name: every},
        flower_basic_auth=(LOGIN,),
    )
    with (
        embedded(settings, pools=["default"], flower=True, scheduler=True) as pond,
        run_gateway(settings) as gateway,
        Client(settings=settings) as client,
    ):
        with client.batch() as batch:
            batch.send_many(Square(n=n) for n in range(5))
        assert batch.wait(timedelta(seconds=30)).succeeded == 5

        assert gateway.ask("GET", "/health/ready").status == 200
        assert gateway.send(query="?track=true").status == 202
        assert ENCODED not in gateway.log.read_text()

        def all_is_shown() -> bool:
            pages = {page: _page(f"{pond.flower_url}{page}") for page in PAGES}
            assert not any(ENCODED in text or PASSWORD in text for text in pages.values())
            return (
                '"name": "default"' in pages["api/queues/length"]
                and "default.1@" in pages["workers?refresh=1"]
                and name in pages["schedules"]
                and "default" in pages["broker"]
                and "transport" in pages[PAGES[0]]
                and "No queue data" not in pages["broker"]
            )

        eventually(all_is_shown, 30)


LOGIN = "ann:secret"
PAGES = (
    f"worker/default.1@{gethostname()}",
    "workers?refresh=1",
    "tasks",
    "broker",
    "api/queues/length",
    "pools",
    "queues",
    "batches",
    "schedules",
    "dead",
)


def _page(url: str) -> str:
    """Return a page of Flower; nothing while there is none, as of a worker that it has not met."""
    login = {"Authorization": f"Basic {b64encode(LOGIN.encode()).decode()}"}
    try:
        with urlopen(Request(url, headers=login), timeout=20) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        if error.code != 404:
            raise
        return ""


def _millpond(commands: ForkedCommands, words: list[str], settings: Settings) -> Done:
    return commands.run(words, {**child_environment(settings), "NO_COLOR": "1"}, timeout=60)


@pytest.mark.parametrize(
    "url", ["redis://:Geheim/x@127.0.0.1/0", "rediss://:Geheim@h?ssl_cert_reqs=Geheim", "amqp://:Geheim@h"]
)
@pytest.mark.parametrize(
    "program",
    [["status"], ["worker", "default"], ["scheduler"], ["gateway"], ["flower"], ["why"], ["up"], ["metrics"]],
    ids=lambda words: words[0],
)
def test_every_program_refuses_alike(
    program: list[str], url: str, commands: ForkedCommands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every program prints the same line and ends with 2; no possible password of the URL is in the line."""
    monkeypatch.chdir(tmp_path)
    done = _millpond(commands, program, Settings(broker_url=url))
    [line] = done.stderr.splitlines()
    assert done.returncode == 2, line
    assert line.startswith("millpond: MILLPOND_BROKER_URL: the broker URL ")
    assert "cannot be used: " in line
    assert "Geheim" not in done.stderr + done.stdout


def test_celerys_own_command_refuses_without_the_password(tmp_path: Path) -> None:
    """`celery -A millpond.worker.app` names the fault of the URL, and shows nothing of it."""
    done = run_to_end(
        [sys.executable, "-m", "celery", "-A", "millpond.worker.app", "worker"],
        env=child_environment(Settings(broker_url="redis://:Geheim/x@127.0.0.1/0")),
        cwd=tmp_path,
    )
    assert done.returncode
    assert "the broker URL redis://… cannot be used: its port" in done.stderr
    assert "Geheim" not in done.stderr + done.stdout

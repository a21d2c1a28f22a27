"""The examples of the gateway's README work as they stand there, with real workers."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from millpond.broker import limits
from millpond.broker.inspect.depth import read_depth
from millpond.producer.client import Client
from millpond.worker.local.embedded import Embedded
from tests.conftest import Eventually
from tests.harness.gateway_process import GatewayProcess, run_gateway
from tests.harness.run_to_end import run_to_end

README = (Path(__file__).parents[3] / "producer" / "gateway" / "README.md").read_text()


@pytest.fixture(scope="module")
def gateway(pond: Embedded) -> Iterator[GatewayProcess]:
    """Run a gateway in front of five slots."""
    with run_gateway(pond.settings) as started:
        yield started


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.S)
    return str(found)


def test_every_curl_of_the_readme_works(gateway: GatewayProcess, program: Callable[[str], str]) -> None:
    """The commands run one after the other, none fails, and each route of the schema is among them."""
    program("curl")
    code = block("sh").replace("http://127.0.0.1:8080", gateway.url)
    done = run_to_end(["bash", "-euo", "pipefail", "-c", code])
    assert done.returncode == 0, done.stderr
    assert '"accepted": 100' in done.stdout
    assert '"value": 81' in done.stdout
    paths = {re.sub(r"\{id\}", "", path) for path in gateway.ask("GET", "/openapi.json").json["paths"]}
    routes = {path for path in paths if not path.startswith("/send/")}
    shown = code.replace("$G$T", "/tasks/").replace("$G$B", "/batches/")
    assert [path for path in routes if path not in shown] == []


def test_the_client_of_the_readme_gets_through_a_full_queue(
    pond: Embedded, gateway: GatewayProcess, eventually: Eventually
) -> None:
    """Ten senders on a bound of five are refused, come back, and everything is done once."""
    names: dict[str, Any] = {}
    exec(block("python"), names)

    def one(n: int) -> str:
        return str(names["send"]("squares.square", {"n": n}, f"full-{n}", gateway.url))

    with Client(settings=pond.settings) as client, ThreadPoolExecutor(10) as senders:

        def counter(name: str) -> int:
            return read_depth(client.store, "default").counters.get(name, 0)

        before = {name: counter(name) for name in ("published", "refused", "settled")}
        limits.change_limits(client.store, "default", bound=5, paused=True)
        sending = senders.map(one, range(30))
        eventually(lambda: counter("refused") >= before["refused"] + 5, timeout=30)
        limits.change_limits(client.store, "default", bound=5, paused=None)
        assert len(set(sending)) == 30
        eventually(lambda: counter("settled") == before["settled"] + 30)
        assert counter("published") == before["published"] + 30
        limits.change_limits(client.store, "default", bound=None)

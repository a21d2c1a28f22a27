"""docker-compose.yml and the Dockerfile agree with the pools table and the one deadline."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from millpond.tasks.pools import DRAIN_SECONDS, STOP_MARGIN_SECONDS, PoolsTable
from millpond.tasks.settings import Settings

TOP = Path(__file__).parents[3]
POOLS = PoolsTable().pools
#: The memory of a worker beside its prefork children.
WORKER_MB = 512


@pytest.fixture(scope="module", name="services")
def services_fixture() -> dict[str, Any]:
    """Return the services of the compose file, as they are written."""
    return dict(yaml.safe_load((TOP / "docker-compose.yml").read_text())["services"])


def defaulted(value: object) -> str:
    """Return a value with the defaults of its `${NAME:-default}`."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def test_there_is_a_service_for_each_pool(services: dict[str, Any]) -> None:
    """Every pool of the table has a service that runs it, and no service runs another."""
    workers = {name: service["command"] for name, service in services.items() if name.startswith("worker-")}
    assert workers == {f"worker-{pool}": ["worker", pool] for pool in POOLS}


@pytest.mark.parametrize("service", [*(f"worker-{pool}" for pool in POOLS), "gateway"])
def test_a_service_may_use_its_whole_deadline(service: str, services: dict[str, Any]) -> None:
    """A container is killed when the drain deadline and the margin after it are over, not before."""
    assert services[service]["stop_grace_period"] == f"{DRAIN_SECONDS + STOP_MARGIN_SECONDS:.0f}s"
    assert "MILLPOND_DRAIN_SECONDS" not in services[service]["environment"]


def test_the_pool_for_files_has_a_core_and_its_memory_for_each_slot(services: dict[str, Any]) -> None:
    """Slots, processors and memory of the pool for files go together by the table's memory cap."""
    service = services["worker-files"]
    slots = int(defaulted(service["environment"]["MILLPOND_TABLE__POOLS__FILES__CONCURRENCY"]))
    cap = POOLS["files"].max_memory_per_child_mb
    assert cap is not None
    assert float(defaulted(service["cpus"])) == slots * POOLS["files"].processes
    assert defaulted(service["mem_limit"]) == f"{slots * cap + WORKER_MB}m"


@pytest.mark.parametrize("pool", POOLS)
def test_health_is_that_of_the_pool(pool: str, services: dict[str, Any]) -> None:
    """The health check asks whether the pool of this container works."""
    assert services[f"worker-{pool}"]["healthcheck"]["test"] == ["CMD", "millpond", "health", pool]


def test_the_environment_is_one_that_the_settings_read(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every variable of the services is a setting, and the number of slots arrives in the table."""
    given = {"FLOWER_LOGIN": "ann:secret", "GATEWAY_TOKEN_HASH": f"sha256:{'0' * 64}"}
    for name, value in {**services["flower"]["environment"], **services["gateway"]["environment"]}.items():
        wanted = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: given.get(found[1], "secret"), defaulted(value))
        monkeypatch.setenv(name, wanted)
    assert any(
        f"millpond.toml:{os.environ['MILLPOND_CONFIG']}:ro" in each for each in services["flower"]["volumes"]
    )
    monkeypatch.setenv("MILLPOND_CONFIG", str(TOP / "deploy" / "millpond.toml"))
    read = Settings()
    assert read.schedule["heartbeat"].kind == "squares.square"
    assert read.table.pools["files"].concurrency == 2
    assert read.table.pools["files"].queues == POOLS["files"].queues
    assert read.files.roots == ("/srv/files",)
    assert read.smtp.host == "sink"
    assert [token.name for token in read.gateway.tokens] == ["shop"]
    assert [login.get_secret_value() for login in read.flower_basic_auth] == ["ann:secret"]


def test_nothing_is_published_beyond_loopback(services: dict[str, Any]) -> None:
    """Every published port is one of 127.0.0.1."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_demo_runs_only_when_it_is_asked_for(services: dict[str, Any]) -> None:
    """Without a profile, docker-compose runs the broker, the pools, the gateway, Flower, and no more."""
    plain = {name for name, service in services.items() if not service.get("profiles")}
    assert plain == {"valkey", "gateway", "scheduler", "flower", *(f"worker-{pool}" for pool in POOLS)}


def test_every_secret_is_asked_for() -> None:
    """A variable without a default is required by compose, and the example names it."""
    wanted = set(re.findall(r"\$\{(\w+):\?", (TOP / "docker-compose.yml").read_text()))
    named = set(re.findall(r"^(\w+)=$", (TOP / ".env.example").read_text(), re.MULTILINE))
    assert wanted == named
    assert not re.findall(r"(?<!\$)\$\{\w+\}", (TOP / "docker-compose.yml").read_text())


def test_the_image_locks_what_the_developers_have() -> None:
    """The image's lock is a part of the developers' lock: the tests ran with these versions."""
    pinned = re.compile(r"^([\w.-]+==\S+)", re.MULTILINE)
    image = set(pinned.findall((TOP / "requirements-prod.lock").read_text()))
    assert image
    assert image <= set(pinned.findall((TOP / "requirements.lock").read_text()))


def test_the_runbook_is_short() -> None:
    """The runbook is a page or two; that its commands work is tested with containers."""
    assert len((TOP / "deploy" / "README.md").read_text().splitlines()) <= 100


def test_every_image_is_pinned() -> None:
    """An image that is not our own has its whole version or its digest: a build is the same tomorrow."""
    places = ["docker-compose.yml", "deploy/Dockerfile", *_manifests()]
    found = {
        image
        for place in places
        for image in re.findall(
            r"(?:image: |BASE=|BASE:-|IMAGE:-)([a-z][\w./-]*(?:[:@][\w.:-]+)?)", _read(place)
        )
        if not image.startswith("millpond")
    }
    assert len(found) >= 2
    for image in found:
        assert re.search(r":\d+\.\d+\.\d+(-[\w-]+)?$|@sha256:[0-9a-f]{64}$", image), image


def _manifests() -> list[str]:
    return [str(each.relative_to(TOP)) for each in (TOP / "deploy/kubernetes").rglob("*.yaml")]


def _read(place: str) -> str:
    return (TOP / place).read_text()

"""Run the project's image as the worker of pytest-celery, against a real broker.

Only the necessary differences are replaced: the images, how the worker is started, and how it is told of the
broker.
"""

from typing import Any

import pytest
from celery import Celery
from pytest_celery import (
    CELERY_REDIS_BROKER,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerContainer,
    RedisContainer,
)
from pytest_docker_tools import container, fxtr

from millpond.broker.connection import connect
from millpond.broker.inspect import depth
from tests.conftest import Eventually
from tests.scenarios.containers.images import IMAGE

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]


class Valkey(RedisContainer):
    """The broker: Valkey of the project's image, for no other can be pulled everywhere."""

    @classmethod
    def command(cls, *args: str, **_: object) -> list[str]:
        """Return the options of Valkey."""
        return ["--save", "", "--protected-mode", "no", "--maxmemory-policy", "noeviction", *args]

    @property
    def host_url(self) -> str:
        """Return the URL for this machine, by the address at which it reaches a container."""
        host, port = self.get_addr("6379/tcp")
        return f"redis://{host}:{port}/0"


class PoolWorker(CeleryWorkerContainer):
    """A worker: the pool `default`, started as docker-compose.yml does."""

    @property
    def ready_prompt(self) -> str:
        """Return the supervisor's log text at the time when the pool takes messages."""
        return "takes messages after"

    @classmethod
    def worker_name(cls) -> str:
        """Return Celery's name of the pool's process."""
        return "default.1"

    @classmethod
    def worker_queue(cls) -> str:
        """Return the queue of the pool."""
        return "default"

    @classmethod
    def command(cls, *args: str, **_: object) -> list[str]:
        """Return the command of the image."""
        return ["worker", cls.worker_queue(), *args]

    @classmethod
    def initial_env(
        cls, celery_worker_cluster_config: dict[str, Any], initial: dict[str, str] | None = None
    ) -> dict[str, str]:
        """Return the environment: the broker's URL as the network of the test knows it."""
        (url,) = celery_worker_cluster_config["celery_broker_cluster_config"]["urls"]
        return {**(initial or {}), "MILLPOND_BROKER_URL": url}


default_redis_broker = container(
    image=IMAGE,
    entrypoint=["valkey-server"],
    command=Valkey.command(),
    ports=Valkey.ports(),
    network="{default_pytest_celery_network.name}",
    wrapper_class=Valkey,
    timeout=60,
)

default_worker_container = container(
    image=IMAGE,
    command=fxtr("default_worker_command"),
    environment=fxtr("default_worker_env"),
    network="{default_pytest_celery_network.name}",
    wrapper_class=PoolWorker,
    read_only=True,
    tmpfs={"/tmp": ""},
    cap_drop=["ALL"],
    timeout=120,
)


@pytest.fixture(scope="session", autouse=True)
def _image(image: str) -> None:
    """Build the image first."""


@pytest.fixture(params=[CELERY_REDIS_BROKER])
def celery_broker(request: pytest.FixtureRequest) -> object:
    """Take the one broker that Millpond speaks to."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def celery_backend_cluster() -> None:
    """Take no result backend: results go into batches."""


@pytest.fixture
def default_worker_container_cls() -> type[CeleryWorkerContainer]:
    """Take our worker."""
    return PoolWorker


@pytest.fixture
def celery_setup_app(celery_setup_config: dict[str, Any], celery_setup_name: str) -> Celery:
    """Make a stock Celery client."""
    app = Celery(celery_setup_name)
    app.config_from_object({**celery_setup_config, "result_backend": None})
    return app


def test_a_stock_client_and_the_projects_image(celery_setup: CeleryTestSetup, eventually: Eventually) -> None:
    """A stock client's task is run by the image's pool, which answers `ping` and `inspect` as Celery does."""
    worker: CeleryTestWorker = celery_setup.worker
    for n in range(10):
        celery_setup.app.send_task("squares.square", kwargs={"n": n}, queue=worker.worker_queue)
    store = connect(celery_setup.broker.container.celeryconfig["host_url"])
    eventually(
        lambda: depth.read_depth(store, "default").counters.get("settled") == 10, 60, every_seconds=0.2
    )
    store.close()
    assert depth.read_depth(store, "default").dead == 0
    (answer,) = celery_setup.app.control.ping(timeout=10, limit=1)
    assert list(answer.values()) == [{"ok": "pong"}]
    assert next(iter(answer)).startswith("default.1@")

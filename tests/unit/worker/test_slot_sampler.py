"""Where a slot's time goes, seen from outside the handler: real threads that wait for real things."""

import asyncio
import ctypes
import gc
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import weakref
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from time import sleep

import pytest

from millpond.broker.stats.calls import CallFigures, add_call_field
from millpond.broker.stats.window import RESULTS, Place
from millpond.worker.report import library_data, span_peers, thread_activity
from millpond.worker.report.recorded_calls import CALLED_PEERS, record_call
from millpond.worker.report.slot_sampler import SlotSampler, _add_unseen_waits
from tests.conftest import Eventually
from tests.harness.run_to_end import run_to_end
from tests.harness.sampled_slots import Slots, largest_place, main_place, sample_until


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Listen, and answer nobody."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server


def answer_and_end(listening: socket.socket, slots: Slots, eventually: Eventually) -> None:
    """Close the connection on which a slot waits, and wait until its function has ended."""
    answer, _ = listening.accept()
    answer.close()
    eventually(lambda: not slots.kinds)


def test_a_peer_is_named_with_library_and_line(
    slots: Slots, listening: socket.socket, eventually: Eventually
) -> None:
    """A slot that waits for an answer names the address, the library that asked and the handler's line."""
    import http.client

    host, port = listening.getsockname()

    connection = http.client.HTTPConnection(host, port, timeout=60)

    def ask() -> None:
        connection.request("GET", "/")
        with suppress(OSError, http.client.HTTPException):
            connection.getresponse()

    slots.run(ask)
    place = main_place(slots)
    answer_and_end(listening, slots, eventually)
    connection.close()
    assert (place.category, place.name, place.library) == ("peer", f"{host}:{port}", "http")
    assert place.line.startswith(f"{__name__}:")


def test_a_handler_with_an_event_loop_names_the_peer_and_not_the_loop(
    slots: Slots, listening: socket.socket, eventually: Eventually
) -> None:
    """The loop waits for a socket of its own as well, by which it is woken."""
    host, port = listening.getsockname()

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        await reader.read()
        writer.close()

    slots.run(lambda: asyncio.run(ask()))
    place = main_place(slots)
    answer_and_end(listening, slots, eventually)
    assert (place.category, place.name) == ("peer", f"{host}:{port}")


def test_a_connection_that_is_not_answered_names_the_address(slots: Slots, eventually: Eventually) -> None:
    """A host that does not answer is named while a handler connects to it."""

    def connect() -> None:
        with suppress(OSError):
            socket.create_connection(address, timeout=60).close()

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        address = server.getsockname()
        with socket.create_connection(address), closing(socket.socket()) as second:
            second.setblocking(False)
            second.connect_ex(address)
            slots.run(connect)
            assert main_place(slots).name == f"{address[0]}:{address[1]}"
    eventually(lambda: not slots.kinds)


def test_an_answer_by_udp_is_named(slots: Slots, eventually: Eventually) -> None:
    """A question by UDP without a connection has no address that the kernel knows."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.bind(("127.0.0.1", 0))
        slots.run(lambda: asked.recvfrom(1))
        assert main_place(slots).name == "an answer by UDP"
        asked.sendto(b".", asked.getsockname())
        eventually(lambda: not slots.kinds)


def test_a_child_program_a_sleep_and_a_locked_database_are_named(slots: Slots, tmp_path: Path) -> None:
    """A place that is no peer and no lock of the process is named too."""
    child = subprocess.Popen(["sleep", "60"])
    slots.run(child.wait)
    assert main_place(slots).category == "child"
    child.kill()
    child.wait()

    slots = Slots()
    slots.run(lambda: sleep(5))
    assert main_place(slots).category == "sleep"

    slots = Slots()
    owner = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    owner.execute("create table orders (n)")
    owner.execute("begin immediate")

    def write() -> None:
        with closing(sqlite3.connect(tmp_path / "shop.db", timeout=5)) as waiting, waiting:
            waiting.execute("insert into orders values (1)")

    with closing(owner):
        slots.run(write)
        place = main_place(slots)
        owner.execute("rollback")
    assert (place.category, place.name) == ("lock", "SQLite")


COLLECTING = """
import gc, threading
from millpond.worker.report.slot_sampler import SlotSampler, _add_unseen_waits

class Own:
    def __init__(self):
        self.itself, self.local = self, threading.local()
        self.local.n = 1

sampler = SlotSampler({threading.get_ident(): "kind"})
for threshold in range(2, 400):
    gc.set_threshold(threshold, 1, 1)
    for _ in range(20):
        Own()
        sampler.sample_slots()
print("went on")
"""


def test_garbage_that_is_collected_meanwhile_stops_nothing() -> None:
    """A sample ends while a thread's own data is garbage: it stopped the process on Python 3.11.7."""
    done = run_to_end([sys.executable, "-c", COLLECTING])
    assert done.stdout == "went on\n", done.stderr


def test_a_sample_keeps_nothing_that_a_task_held() -> None:
    """What a task holds is freed as it returns, not when garbage is collected, however often it was seen."""

    class Picture:
        pass

    seen, held = threading.Event(), []

    def task() -> None:
        picture = Picture()
        held.append(weakref.ref(picture))
        seen.wait(60)

    thread = threading.Thread(target=task)
    gc.disable()
    try:
        thread.start()
        assert thread.ident is not None
        sampler = SlotSampler({thread.ident: "kind"})
        for _ in range(3):
            sampler.sample_slots()
        seen.set()
        thread.join()
        assert held[0]() is None
    finally:
        gc.enable()


def test_places_are_bounded(slots: Slots) -> None:
    """However many peers a process speaks to, its report is bounded."""
    for n in range(1_000):
        slots.sampler._add_seconds(Place("peer", f"10.0.0.{n}:80"), 0.001)
    assert len(slots.sampler.take_samples()) <= 41


def test_a_task_that_ended_is_not_counted(slots: Slots, eventually: Eventually) -> None:
    """A slot without a task has no time to account for."""
    slots.run(lambda: None)
    eventually(lambda: not slots.kinds)
    slots.sampler.sample_slots()
    slots.sampler.sample_slots()
    assert not slots.sampler.take_samples()


def test_the_round_trips_of_a_connection_are_counted(slots: Slots, eventually: Eventually) -> None:
    """A handler that asks over one connection again and again is seen to; the kernel counts."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError), server.accept()[0] as connection:
                while connection.recv(9):
                    stop.wait(0.01)
                    connection.sendall(b"yes")

        threading.Thread(target=answer, daemon=True).start()

        def ask() -> None:
            with socket.create_connection(server.getsockname()) as connection:
                while not stop.is_set():
                    connection.sendall(b"well?")
                    connection.recv(9)
                    asked.append(1)

        asked: list[int] = []
        slots.run(ask, "chatty")
        eventually(lambda: asked)
        slots.places(1.0)
        before = len(asked)
        slots.places(0.2)
        stop.set()
        calls: dict[tuple[str, str], CallFigures] = {}
        for name, value in slots.sampler.take_calls().items():
            add_call_field(calls, name.partition(":")[2], value)
        host, port = server.getsockname()
    trips = calls["chatty", f"{host}:{port}"].round_trips(1.0)
    assert trips is not None
    assert before / 2 < trips <= len(asked) + 1
    assert calls["chatty", f"{host}:{port}"].waits > 0


def test_a_peer_has_the_name_that_its_handler_gives_it(slots: Slots) -> None:
    """Within `context.calling`, a slot waits for the peer of that name, whatever it is blocked on."""
    stop = threading.Event()

    def call() -> None:
        with record_call("order", "crm", 3):
            stop.wait(10)

    slots.run(call, "order")
    place = main_place(slots)
    stop.set()
    assert place.name == "crm"


def test_a_client_span_names_the_peer(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a span of an OpenTelemetry instrumentation is open, the slot waits for the peer that it names."""
    trace, sdk = pytest.importorskip("opentelemetry.trace"), pytest.importorskip("opentelemetry.sdk.trace")
    provider = sdk.TracerProvider()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    span_peers.record_client_peers()
    span_peers.record_client_peers()
    tracer, stop = provider.get_tracer("client"), threading.Event()
    about = {"server.address": "db.example.org", "server.port": 5432, "db.system.name": "postgresql"}

    def call() -> None:
        with tracer.start_as_current_span("SELECT", kind=trace.SpanKind.CLIENT, attributes=about):
            stop.wait(10)
        assert threading.get_ident() not in CALLED_PEERS

    slots.run(call, "order")
    place = main_place(slots)
    stop.set()
    assert place.name == "postgresql db.example.org:5432"


def test_a_slot_waits_for_results_of_other_tasks(slots: Slots) -> None:
    """A handler that waits for a batch waits for results, whatever Millpond waits on meanwhile."""
    waits = {"__name__": "millpond.producer.results", "sleep": sleep}
    exec("def read():\n    sleep(60)", waits)
    slots.run(waits["read"])  # type: ignore[arg-type]
    assert (main_place(slots).category, main_place(slots).name) == ("peer", RESULTS)


def test_a_lock_in_the_data_of_a_library_has_its_name() -> None:
    """The kernel has the address of a lock; one in a library's own data is the library's."""
    data = next(low for low, _, name in library_data.data_of_libraries() if name.startswith("libc.so"))
    assert thread_activity._activity_at_futex(data) == thread_activity.Activity("lock", "a lock of libc")
    assert thread_activity._activity_at_futex(1) == thread_activity.Activity("lock")


def test_memory_behind_the_data_of_a_library_is_not_the_librarys() -> None:
    """A lock in memory of Python's own has no library's name, also behind the data of a library."""
    locks = [ctypes.create_string_buffer(64) for _ in range(100_000)]
    addresses = sorted(ctypes.addressof(lock) for lock in locks)
    ranges = library_data._read_data_of_libraries.__wrapped__(0)
    with_locks = (bisect_left(addresses, low) < bisect_left(addresses, high) for low, high, _ in ranges)
    assert not any(with_locks)


def test_a_file_is_named_by_its_disk(tmp_path: Path) -> None:
    """A slot that waits for a file waits for the disk that the file is on."""
    with (tmp_path / "order").open("w") as file:
        assert thread_activity._disk_name(file.fileno()).startswith("the disk of /")


def test_a_file_that_cannot_be_opened_yet_is_waited_for(slots: Slots, tmp_path: Path) -> None:
    """A slot that is held up while it opens a file waits for files."""
    os.mkfifo(tmp_path / "pipe")
    slots.run(lambda: (tmp_path / "pipe").open("rb").close())
    sample_until(slots, lambda places: largest_place(places).category == "file")
    (tmp_path / "pipe").open("wb").close()


def test_waits_that_no_sample_has_are_like_those_that_were_seen() -> None:
    """A slot that is mostly found on a processor, between short waits for the disk, waits for the disk."""
    computes, disk, likely = Place("processor", kind="a"), Place("file", kind="a"), Place("unknown", kind="a")
    seen = Counter({computes: 500, disk: 30, Place("peer", kind="b"): 100})
    assert _add_unseen_waits(seen, Counter({likely: 400})) == seen + Counter({disk: 400})
    alone = Counter({computes: 5, Place("interpreter", kind="a"): 1})
    assert _add_unseen_waits(alone, Counter({likely: 4})) == alone + Counter({likely: 4})

"""Batches with real workers: results as they come, failures with reasons, reading from anywhere."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from millpond.producer.client import Client
from millpond.tasks.errors import UnknownBatch
from millpond.tasks.files.contract import Checksum
from millpond.tasks.settings import Files, Settings
from millpond.tasks.squares.contract import Square
from millpond.worker.local.embedded import embedded
from millpond.worker.local.valkey import Server


@pytest.fixture(scope="module")
def client(root: Path, server: Server) -> Iterator[Client]:
    """A client of workers for squares and files."""
    url = f"{server.url.rpartition('/')[0]}/1999"
    settings = Settings(broker_url=url, key_prefix="batches:", files=Files(roots=(str(root),)))
    with embedded(settings, pools=["default", "files"]), Client(settings=settings) as opened:
        yield opened


def test_results_come_in_order_of_completion_while_the_batch_runs(client: Client) -> None:
    """Results come in the order of completion, before the batch is complete."""
    with client.batch("slow and quick") as batch:
        slow = batch.send(Square(n=3, hold_seconds=1.0))
        batch.send(Square(n=2))
    results = batch.results()
    first = next(results)
    assert first.value == 4
    assert not batch.summary().complete
    assert [(result.id, result.value) for result in results] == [(slow.id, 9)]
    assert batch.summary().complete


def test_results_are_read_inside_the_block(client: Client) -> None:
    """Inside the `with` block, `results()` ends with the tasks sent so far, though the batch is open."""
    with client.batch() as batch:
        assert batch.send_many(Square(n=n) for n in range(20)).accepted == 20
        assert sorted(result.value for result in batch.results()) == [n * n for n in range(20)]
        batch.send(Square(n=100))
    assert batch.wait(timedelta(seconds=60)).succeeded == 21


def test_results_go_on_from_a_position(client: Client) -> None:
    """A reader that stopped goes on behind the last result it saw: none is missing, none comes twice."""
    with client.batch() as batch:
        batch.send_many(Square(n=n) for n in range(1_200))
    seen, results = [], batch.results()
    for result in results:
        seen.append(result)
        if len(seen) == 700:
            break
    rest = list(client.open_batch(batch.id).results(after=seen[-1].position))
    assert sorted(result.value for result in [*seen, *rest]) == [n * n for n in range(1_200)]


def test_a_reader_elsewhere_follows_until_the_producer_closes(client: Client) -> None:
    """A reader that knows only the id gets every result, also of tasks sent after it started."""
    read: list[int] = []
    with client.batch() as batch:
        reader = threading.Thread(
            target=lambda: read.extend(r.value for r in client.open_batch(batch.id).results())
        )
        reader.start()
        batch.send(Square(n=1))
        batch.wait(timedelta(milliseconds=100))
        batch.send(Square(n=2))
    reader.join(20)
    assert sorted(read) == [1, 4]


def test_failures_come_with_their_reasons(client: Client, root: Path) -> None:
    """Each failed task is listed with a line that has the reason; succeeded tasks are not listed."""
    (root / "here.txt").write_text("here")
    with client.batch() as batch:
        batch.send(Checksum(source=str(root / "here.txt")))
        missing = batch.send(Checksum(source=str(root / "missing.txt")))
    summary = batch.wait(timedelta(seconds=30))
    assert (summary.succeeded, summary.failed) == (1, 1)
    (failure,) = batch.failures()
    assert failure.id == missing.id
    assert "missing.txt" in (failure.error or "")
    assert "\n" not in (failure.error or "")


def test_an_error_in_the_block_closes_the_batch(client: Client) -> None:
    """When the producer fails in the block, the batch is closed, and the error is the producer's."""
    batch = client.batch()
    with pytest.raises(ZeroDivisionError), batch:  # noqa: PT012
        batch.send(Square(n=1))
        _ = 1 / 0
    assert batch.wait(timedelta(seconds=60)).complete


def test_waiting_for_a_time_is_not_an_error(client: Client) -> None:
    """`wait` with a time-out returns the counts as they are."""
    with client.batch() as batch:
        batch.send(Square(n=1, hold_seconds=0.5))
        assert not batch.wait(timedelta(milliseconds=20)).complete
    assert batch.wait().complete


def test_an_invalid_position_is_refused(client: Client) -> None:
    """An invalid position of a result is refused, and the error explains positions."""
    batch = client.batch()
    with pytest.raises(ValueError, match=r"the position of a result.*'rubbish'"):
        next(batch.results(after="rubbish"))


def test_an_unknown_batch_is_named(client: Client) -> None:
    """An id that is no batch's is an error that says where to look."""
    with pytest.raises(UnknownBatch, match="millpond batches"):
        client.open_batch("nonsense")


def test_batches_are_listed_newest_first(client: Client) -> None:
    """The batches opened last can be found without their ids."""
    older, newer = client.batch("older"), client.batch("newer")
    listed = list(client.batches(limit=2))
    assert {summary.id for summary in listed} == {newer.id, older.id}
    assert listed[0].opened_at_ms >= listed[1].opened_at_ms
    older.close()
    newer.close()

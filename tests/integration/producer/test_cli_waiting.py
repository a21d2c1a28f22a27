"""A command whose tasks do not end prints the reason."""

import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from millpond.broker import limits
from millpond.broker.control import drain
from millpond.broker.message import Message as BrokerMessage
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.broker.server import server_time_ms
from millpond.producer.batch import Batch
from millpond.producer.cli import stall_hints
from millpond.producer.cli.batch_runner import LabelledMessage, run_batch
from millpond.producer.cli.client_session import Session
from millpond.producer.cli.counters import Counters
from millpond.producer.cli.mail_sender import send_mail
from millpond.producer.cli.output import Output
from millpond.producer.client import Client
from millpond.producer.message import Message
from millpond.tasks.errors import SettingsError
from millpond.tasks.settings import Settings
from millpond.tasks.squares.contract import Square
from tests.conftest import Eventually


@pytest.fixture
def opened(url: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """Open a session on a broker that no worker serves, whose command is silent for a moment only."""
    monkeypatch.setattr(stall_hints, "QUIET_SECONDS", 0.1)
    with Client(settings=Settings(broker_url=url, key_prefix=prefix)) as client:
        yield Session(client, "default", is_embedded=False)


HasPrinted = Callable[[str], bool]


@pytest.fixture
def has_printed(capsys: pytest.CaptureFixture[str]) -> HasPrinted:
    """Return `has_printed(words)`: True once the command has printed these words on stderr."""
    printed: list[str] = []

    def read_and_search(words: str) -> bool:
        printed.append(capsys.readouterr().err)
        return words in "".join(printed)

    return read_and_search


def test_a_queue_without_workers_is_named(
    opened: Session, eventually: Eventually, has_printed: HasPrinted
) -> None:
    """Of a queue without workers the command prints one line, and goes on waiting."""
    with ThreadPoolExecutor(1) as threads:
        job = LabelledMessage("seven", Message(Square(n=7)))
        command = threads.submit(run_batch, opened, [job], title="squares", output=Output(as_json=False))
        eventually(
            lambda: has_printed("no worker fetches from the queue default: start one with millpond worker")
        )
        (batch,) = opened.client.batches()
        opened.client.open_batch(batch.id).cancel()
        assert command.result(30) == 1


def test_a_ctrl_c_while_the_batch_is_being_closed_waits_as_any_other(
    opened: Session, eventually: Eventually, monkeypatch: pytest.MonkeyPatch, has_printed: HasPrinted
) -> None:
    """The command prints the pending tasks and waits for them; its exit code is 130."""
    close = Batch.close

    def interrupted(batch: Batch) -> None:
        monkeypatch.setattr(Batch, "close", close)
        close(batch)
        raise KeyboardInterrupt

    monkeypatch.setattr(Batch, "close", interrupted)
    with ThreadPoolExecutor(1) as threads:
        job = LabelledMessage("seven", Message(Square(n=7)))
        command = threads.submit(run_batch, opened, [job], title="squares", output=Output(as_json=False))
        eventually(lambda: has_printed("1 tasks are pending in batch"))
        (batch,) = opened.client.batches()
        opened.client.open_batch(batch.id).cancel()
        assert command.result(30) == 130


def test_a_queue_that_hands_nothing_out_is_named_while_the_sender_waits_for_room(
    opened: Session, eventually: Eventually, has_printed: HasPrinted
) -> None:
    """Where the queue is full and paused, or its pool drained, the command says so before all is sent."""
    store = opened.client.store
    opened.client.send(Square(n=1))
    limits.change_limits(store, "default", bound=1, paused=True)

    with ThreadPoolExecutor(1) as threads:
        jobs = (LabelledMessage(str(n), Message(Square(n=n))) for n in range(3))
        command = threads.submit(run_batch, opened, jobs, title="squares", output=Output(as_json=False))
        try:
            eventually(
                lambda: has_printed("the queue default is paused: resume it with millpond queue resume")
            )
        finally:
            limits.change_limits(store, "default", bound=None, paused=None)
            (batch,) = opened.client.batches()
            eventually(lambda: opened.client.open_batch(batch.id).summary().closed_at_ms)
            opened.client.open_batch(batch.id).cancel()
        assert command.result(30) == 1
    count = Counters()
    count.add_label("none", "photo.jpg")
    drain.drain_pool(store, "default")
    assert "drained: resume it with millpond resume default" in (
        stall_hints.explain_stall(opened, count) or ""
    )


def test_a_task_that_is_tried_again_is_named(opened: Session) -> None:
    """A task that waits for a retry is named, with its number of runs."""
    store = opened.client.store
    opened.client.send(Square(n=1))  # so that the queue is known
    now, count = server_time_ms(store), Counters()
    count.add_label("one", "photo.jpg")
    sent = compose("a", {}, queue="default", sent_at_ms=now, id="one", due_ms=now + 60_000)
    again = BrokerMessage.decode(sent.payload).for_next_run(due_ms=sent.due_ms, retries=2, shown="{}")
    publish(store, [replace(sent, payload=str(again.text))], policy="exempt")
    assert "photo.jpg: delayed for a retry after 2 runs" in (stall_hints.explain_stall(opened, count) or "")


def test_without_a_mail_server_nothing_is_tried_for_an_hour(
    url: str, monkeypatch: pytest.MonkeyPatch, no_settings: Path
) -> None:
    """The command's own workers do not get a mail that they cannot deliver; the missing setting is named."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    monkeypatch.setenv("MILLPOND_SMTP__HOST", "127.0.0.1")
    monkeypatch.setenv("MILLPOND_SMTP__PORT", str(port))

    @contextmanager
    def embedded(own: Settings, pools: Sequence[str]) -> Iterator[str]:
        yield url

    fields = {"sender": "a@example.org", "to": ("b@example.org",), "text": "hello"}
    with pytest.raises(SettingsError, match=f"no mail server answers at 127.0.0.1:{port} .*SMTP__HOST"):
        send_mail(embedded, fields, queue=None, as_json=False)

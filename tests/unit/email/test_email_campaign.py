"""A campaign reads its CSV, makes the ids of its mails, and is sent in chunks."""

import tracemalloc
from contextlib import contextmanager
from io import BytesIO, RawIOBase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.tasks.context import Context
from millpond.tasks.email.campaign import read_valid_mails
from millpond.tasks.email.campaign_chunk import send_chunk
from millpond.tasks.email.contract import SendCampaign
from millpond.tasks.email.csv_rows import read_rows
from millpond.tasks.email.ledger import MailLedger
from millpond.tasks.email.outbox import require_outbox
from millpond.tasks.errors import BadInput, FinalError, RetryLater

CSV = b'email,name\nann@example.org,Ann\n\nbob@example.org,"Bob\nthe 2nd"\ncarl@example.org,Carl\n'


def make_campaign(**changes) -> SendCampaign:
    fields = {
        "sender": "us@example.org",
        "source": "list.csv",
        "subject": "Hi {{ name }}",
        "text": "Dear {{ name }}",
    }
    return SendCampaign(**{**fields, **changes})


def read_mails(csv: bytes, **changes):
    return list(read_valid_mails(make_campaign(**changes), BytesIO(csv), campaign_id="c"))


def test_each_row_is_a_mail():
    """A row becomes a mail to its address, with every column in the context; blank lines are no rows."""
    mails = read_mails(CSV)
    assert [mail.job.to[0] for mail in mails] == ["ann@example.org", "bob@example.org", "carl@example.org"]
    assert mails[1].job.context == {"email": "bob@example.org", "name": "Bob\nthe 2nd"}
    assert mails[0].job.subject == "Hi {{ name }}"


def test_ids_are_the_same_each_time_and_differ_by_campaign_row_and_address():
    """Reading again gives the same ids; another campaign, row or address another one."""
    first = [mail.id for mail in read_mails(CSV)]
    assert first == [mail.id for mail in read_mails(CSV)]
    other = [mail.id for mail in read_valid_mails(make_campaign(), BytesIO(CSV), campaign_id="d")]
    twice = [mail.id for mail in read_mails(b"email\na@example.org\na@example.org\nb@example.org\n")]
    assert len({*first, *other, *twice}) == 9


def test_reading_mails_may_begin_after_any_row():
    """Reading that begins after any row yields the same mails as reading the whole file."""
    whole = read_mails(CSV)
    for number, mail in enumerate(whole):
        place = mail.after
        rest = read_mails(CSV, row=place.row, line=place.line, offset=place.offset)
        assert [(m.id, m.job, m.after) for m in rest] == [(m.id, m.job, m.after) for m in whole[number + 1 :]]


cell = st.text(alphabet=st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(cell, min_size=2, max_size=2), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_reading_rows_may_begin_after_any_row(table, end):
    """For any cells, reading that begins after any row yields the same rows."""
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in table]
    data = ("\ufeffa,b" + end + "".join(line + end for line in quoted)).encode()
    whole = list(read_rows(BytesIO(data))[1])
    assert [row.cells for row in whole] == table
    for row in whole:
        assert list(read_rows(BytesIO(data), row.after)[1]) == whole[row.number + 1 :]


@pytest.mark.parametrize(
    ("csv", "says"),
    [
        (b"", "no header"),
        (b"name\nAnn\n", "no column 'email', only 'name'"),
        (b"email,email\n", "'email' twice"),
        (b"email\nann@example.org\nnobody\n", "line 3: .*'nobody'"),
        (b"email,name\nann@example.org,A\nb@example.org\n", "line 3: it has 1 fields where .* names 2"),
        (b'email,name\nann@example.org,"A\nB"\n\nbad,x\n', "line 5"),
        (b"email,name\nann@example.org,J\xf6rg\n", "not UTF-8 at line 2, byte 18"),
        ("email\nann@example.org\n".encode("utf-16"), "not UTF-8 at line 1"),
        (b'email,name\nann@example.org,"open\n', "line 2: unexpected end of data"),
        (b"email\n" + b"x" * 1_000_001, "row of over 1000000 bytes, which begins at line 2"),
        (
            b"email\na@example.org\n" + b'"x\n",' * 200_001,
            "row of over 1000000 bytes, which begins at line 3",
        ),
        (b"email\nann@example.org\0\n", "line 2"),
    ],
)
def test_faults_name_the_line(csv, says):
    """An error in a file is one message that names the line and the fault."""
    with pytest.raises(BadInput, match=says) as caught:
        read_mails(csv)
    assert "\n" not in str(caught.value)


def test_byte_order_mark_and_other_column():
    """A file from a spreadsheet, with a byte order mark and CRLF, is read; the column may be named."""
    mails = read_mails(
        "\ufeffMail;\r\n".encode().replace(b";", b",x") + b"ann@example.org,1\r\n", column="Mail"
    )
    assert mails[0].job.to == ("ann@example.org",)


class _Endless(RawIOBase):
    """A CSV of `count` rows that is never in memory."""

    def __init__(self, count: int) -> None:
        self.lines = (f"person{n}@example.org,{'x' * 2000}\n".encode() for n in range(count))
        self.header = b"email,name\n"

    def readline(self, size=-1):
        header, self.header = self.header, b""
        return header or next(self.lines, b"")


def test_memory_does_not_grow_with_the_file():
    """Three megabytes of rows are read with less than one megabyte of memory."""
    mails = read_valid_mails(make_campaign(), _Endless(6_500), campaign_id="c")
    for _ in range(5_000):  # beyond the addresses that are remembered
        next(mails)
    tracemalloc.start()
    assert sum(1 for _ in mails) == 1_500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


class CollectingOutbox:
    """An outbox that accepts mails up to `room`, and collects the continuations."""

    def __init__(self, room: int = 10**9) -> None:
        self.room = room
        self.mails: list[str] = []
        self.rest: list[tuple[SendCampaign, float]] = []

    def send_many(self, jobs) -> int:
        taken = 0
        for job_id, _ in jobs:
            if len(self.mails) >= self.room:
                break
            self.mails.append(job_id)
            taken += 1
        return taken

    def send_continuation(self, job, *, after_seconds) -> None:
        self.rest.append((job, after_seconds))


class _BrokenOutbox:
    """An outbox whose broker is away when the continuation is sent."""

    def __init__(self, outbox: CollectingOutbox) -> None:
        self.send_many = outbox.send_many

    def send_continuation(self, job, *, after_seconds) -> None:
        raise RetryLater("broker away")


@pytest.fixture
def ledger(store) -> MailLedger:
    """Return an empty ledger."""
    return MailLedger(store, 60)


PEOPLE = b"email,name\n" + b"".join(b"p%d@example.org,P\n" % n for n in range(10))


def run_chunk(job, outbox, ledger, csv=PEOPLE, task_id="c"):
    @contextmanager
    def open_input(url):
        yield BytesIO(csv)

    return send_chunk(
        job, Context(id=task_id), outbox=outbox, ledger=ledger, open_input=open_input, templates=None
    )


def run_to_the_end(job, outbox, ledger, csv=PEOPLE):
    steps = [run_chunk(job, outbox, ledger, csv)]
    while outbox.rest:
        steps.append(run_chunk(outbox.rest.pop(0)[0], outbox, ledger, csv, task_id="another"))
    return steps


def test_campaign_is_sent_in_chunks(ledger):
    """Ten rows in chunks of four make three runs, and the last one sends no continuation."""
    outbox = CollectingOutbox()
    steps = run_to_the_end(make_campaign(chunk=4), outbox, ledger)
    assert [step.sent for step in steps] == [4, 4, 2]
    assert [step.next_row for step in steps] == [4, 8, None]
    assert outbox.mails == [m.id for m in read_valid_mails(make_campaign(), BytesIO(PEOPLE), campaign_id="c")]


def test_full_queue_is_not_waited_for(ledger):
    """If the queue is full, the run sends a delayed continuation from the first refused mail on."""
    outbox = CollectingOutbox(room=3)
    assert run_chunk(make_campaign(chunk=5), outbox, ledger).sent == 3
    [(rest, after)] = outbox.rest
    assert (rest.row, rest.campaign) == (3, "c")
    assert after > 0
    for _ in range(3):  # still full: no progress, and no end of coming back
        rest, after = outbox.rest.pop()
        assert run_chunk(rest, outbox, ledger).sent == 0
        assert outbox.rest[0][0].row == 3
    outbox.room = 100
    run_to_the_end(outbox.rest.pop()[0], outbox, ledger)
    assert len(set(outbox.mails)) == len(outbox.mails) == 10


def test_chunk_that_is_delivered_twice_is_sent_once(ledger):
    """A second delivery of a chunk sends no mail and no continuation."""
    outbox = CollectingOutbox()
    run_chunk(make_campaign(chunk=4), outbox, ledger)
    again = run_chunk(make_campaign(chunk=4), outbox, ledger)
    assert (again.duplicate, again.sent, len(outbox.mails), len(outbox.rest)) == (True, 0, 4, 1)


def test_chunk_that_failed_is_sent_again_with_the_same_ids(ledger):
    """If the continuation cannot be sent, the retry sends the same mail ids, which the ledger recognizes."""
    outbox = CollectingOutbox()
    with pytest.raises(RetryLater):
        run_chunk(make_campaign(chunk=4), _BrokenOutbox(outbox), ledger)
    run_chunk(make_campaign(chunk=4), outbox, ledger)
    assert outbox.mails[:4] == outbox.mails[4:]


def test_chunk_that_another_delivery_sends_is_left_to_it(ledger):
    """While a delivery sends a chunk, a second delivery of it is retried later."""
    ledger.claim("c/0", "another", seconds=60)
    with pytest.raises(RetryLater) as busy:
        run_chunk(make_campaign(), CollectingOutbox(), ledger)
    assert 0 < busy.value.after_seconds < 61


def test_bad_rows_are_left_out_and_named(ledger):
    """Bad addresses do not stop a campaign. Each bad row is in the result of one run."""
    csv = b"email\na@example.org\nbad\nb@example.org\nworse\nc@example.org\nworst\n"
    outbox = CollectingOutbox()
    steps = run_to_the_end(make_campaign(chunk=2, subject="", text="x"), outbox, ledger, csv)
    assert (len(outbox.mails), sum(step.skipped for step in steps)) == (3, 3)
    reasons = [reason.split(":")[0] for step in steps for reason in step.reasons]
    assert reasons == ["line 3", "line 5", "line 7"]


def test_bad_rows_are_named_once_when_the_queue_is_full(ledger):
    """A run that a full queue ends reports the bad rows before its end, and the next run those after it."""
    csv = b"email\nfirst\na@example.org\nbad\nb@example.org\nworse\nc@example.org\n"
    outbox = CollectingOutbox(room=1)
    first = run_chunk(make_campaign(subject="", text="x"), outbox, ledger, csv)
    outbox.room = 100
    [second] = run_to_the_end(outbox.rest.pop()[0], outbox, ledger, csv)
    assert [reason[:6] for reason in first.reasons + second.reasons] == ["line 2", "line 4", "line 6"]
    assert len(set(outbox.mails)) == len(outbox.mails) == 3


def test_template_is_checked_before_any_mail_is_sent(ledger):
    """A template that fails for each of the first rows stops the campaign before any mail is sent."""
    outbox = CollectingOutbox()
    with pytest.raises(BadInput, match=r"no mail of this campaign was sent: .* `nobody` is undefined"):
        run_chunk(make_campaign(text="{{ nobody }}"), outbox, ledger)
    assert outbox.mails == []


def test_template_that_fails_for_one_row_stops_no_campaign(ledger):
    """A template that fails for one of the first rows does not stop the campaign."""
    outbox = CollectingOutbox()
    csv = b"email,n\na@example.org,x\nb@example.org,2\nc@example.org,3\n"
    job = make_campaign(subject="", text="{{ n|int + 1 }}{% if n == 'x' %}{{ nobody }}{% endif %}")
    assert run_chunk(job, outbox, ledger, csv).sent == 3


def test_file_that_changed_between_chunks_stops_the_campaign(ledger):
    """A file of another size is BadInput, with the row that was reached."""
    outbox = CollectingOutbox()
    run_chunk(make_campaign(chunk=4), outbox, ledger)
    with pytest.raises(BadInput, match=r"changed .* at row 4"):
        run_chunk(outbox.rest[0][0], outbox, ledger, PEOPLE + b"new@example.org\n")


def test_worker_without_an_outbox_says_so():
    """A campaign outside of a worker fails with the remedy."""
    with pytest.raises(FinalError, match="Millpond worker"):
        require_outbox(Context())

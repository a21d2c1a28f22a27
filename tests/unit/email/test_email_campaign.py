"""Check how a campaign reads its CSV, names its mails, and is sent piece by piece."""

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
from millpond.tasks.email.outbox import outbox_of
from millpond.tasks.errors import BadInput, FinalError, RetryLater

CSV = b'email,name\nann@example.org,Ann\n\nbob@example.org,"Bob\nthe 2nd"\ncarl@example.org,Carl\n'


def campaign(**changes) -> SendCampaign:
    fields = {
        "sender": "us@example.org",
        "source": "list.csv",
        "subject": "Hi {{ name }}",
        "text": "Dear {{ name }}",
    }
    return SendCampaign(**{**fields, **changes})


def read(csv: bytes, **changes):
    return list(read_valid_mails(campaign(**changes), BytesIO(csv), campaign_id="c"))


def test_each_row_is_a_mail():
    """A row becomes a mail to its address, with every column in the context; blank lines are no rows."""
    mails = read(CSV)
    assert [mail.job.to[0] for mail in mails] == ["ann@example.org", "bob@example.org", "carl@example.org"]
    assert mails[1].job.context == {"email": "bob@example.org", "name": "Bob\nthe 2nd"}
    assert mails[0].job.subject == "Hi {{ name }}"


def test_ids_are_the_same_each_time_and_differ_by_campaign_row_and_address():
    """Reading again gives the same ids; another campaign, row or address another one."""
    first = [mail.id for mail in read(CSV)]
    assert first == [mail.id for mail in read(CSV)]
    other = [mail.id for mail in read_valid_mails(campaign(), BytesIO(CSV), campaign_id="d")]
    twice = [mail.id for mail in read(b"email\na@example.org\na@example.org\nb@example.org\n")]
    assert len({*first, *other, *twice}) == 9


def test_reading_goes_on_behind_any_row():
    """From the place behind a row come the same mails, ids and lines as in one go."""
    whole = read(CSV)
    for number, mail in enumerate(whole):
        place = mail.after
        rest = read(CSV, row=place.row, line=place.line, offset=place.offset)
        assert [(m.id, m.job, m.after) for m in rest] == [(m.id, m.job, m.after) for m in whole[number + 1 :]]


cell = st.text(alphabet=st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(cell, min_size=2, max_size=2), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_any_row_can_be_gone_on_behind(table, end):
    """For any cells, reading in two goes gives the same as reading in one."""
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
        (b"email\n" + b"x" * 1_000_001, "line 2"),
        (b"email\nann@example.org\0\n", "line 2"),
    ],
)
def test_faults_name_the_line(csv, says):
    """An error in a file is one message that names the line and the fault."""
    with pytest.raises(BadInput, match=says) as caught:
        read(csv)
    assert "\n" not in str(caught.value)


def test_byte_order_mark_and_other_column():
    """A file from a spreadsheet, with a byte order mark and CRLF, is read; the column may be named."""
    mails = read("\ufeffMail;\r\n".encode().replace(b";", b",x") + b"ann@example.org,1\r\n", column="Mail")
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
    """Three megabytes of rows are read in less than one."""
    mails = read_valid_mails(campaign(), _Endless(6_500), campaign_id="c")
    for _ in range(5_000):  # beyond the addresses that are remembered
        next(mails)
    tracemalloc.start()
    assert sum(1 for _ in mails) == 1_500
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


class Box:
    """Take mails while there is room, and remember the continuations."""

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


class _Dropping:
    """Take mails, and lose the broker before the continuation is sent."""

    def __init__(self, box: Box) -> None:
        self.send_many = box.send_many

    def send_continuation(self, job, *, after_seconds) -> None:
        raise RetryLater("broker away")


@pytest.fixture
def ledger(store) -> MailLedger:
    """Return an empty ledger."""
    return MailLedger(store, 60)


PEOPLE = b"email,name\n" + b"".join(b"p%d@example.org,P\n" % n for n in range(10))


def piece(job, box, ledger, csv=PEOPLE, task_id="c"):
    @contextmanager
    def open_input(url):
        yield BytesIO(csv)

    return send_chunk(
        job, Context(id=task_id), outbox=box, ledger=ledger, open_input=open_input, templates=None
    )


def run_to_the_end(job, box, ledger, csv=PEOPLE):
    steps = [piece(job, box, ledger, csv)]
    while box.rest:
        steps.append(piece(box.rest.pop(0)[0], box, ledger, csv, task_id="another"))
    return steps


def test_campaign_is_sent_in_pieces(ledger):
    """Ten rows by four: three runs, each mail once, and the last run sends nothing after it."""
    box = Box()
    steps = run_to_the_end(campaign(chunk=4), box, ledger)
    assert [step.sent for step in steps] == [4, 4, 2]
    assert [step.next_row for step in steps] == [4, 8, None]
    assert box.mails == [m.id for m in read_valid_mails(campaign(), BytesIO(PEOPLE), campaign_id="c")]


def test_full_queue_is_not_waited_for(ledger):
    """With no room left the run ends at once and comes back later for the first mail that was not taken."""
    box = Box(room=3)
    assert piece(campaign(chunk=5), box, ledger).sent == 3
    [(rest, after)] = box.rest
    assert (rest.row, rest.campaign) == (3, "c")
    assert after > 0
    for _ in range(3):  # still full: no progress, and no end of coming back
        rest, after = box.rest.pop()
        assert piece(rest, box, ledger).sent == 0
        assert box.rest[0][0].row == 3
    box.room = 100
    run_to_the_end(box.rest.pop()[0], box, ledger)
    assert len(set(box.mails)) == len(box.mails) == 10


def test_piece_that_is_delivered_twice_is_sent_on_once(ledger):
    """A repeated delivery of a piece sends no mail and no second continuation."""
    box = Box()
    piece(campaign(chunk=4), box, ledger)
    again = piece(campaign(chunk=4), box, ledger)
    assert (again.duplicate, again.sent, len(box.mails), len(box.rest)) == (True, 0, 4, 1)


def test_piece_that_died_is_sent_again_with_the_same_ids(ledger):
    """If sending on fails half-way, the retry sends the same mails, which the ledger of mails knows."""
    box = Box()
    with pytest.raises(RetryLater):
        piece(campaign(chunk=4), _Dropping(box), ledger)
    piece(campaign(chunk=4), box, ledger)
    assert box.mails[:4] == box.mails[4:]


def test_piece_that_another_delivery_sends_is_left_to_it(ledger):
    """While a piece is being sent on, a second delivery of it is told to come back."""
    ledger.claim("c/0", "another", seconds=60)
    with pytest.raises(RetryLater) as busy:
        piece(campaign(), Box(), ledger)
    assert 0 < busy.value.after_seconds < 61


def test_bad_rows_are_left_out_and_named(ledger):
    """Bad addresses do not stop a campaign: the other rows are sent, the bad ones named, once each."""
    csv = b"email\na@example.org\nbad\nb@example.org\nworse\nc@example.org\nworst\n"
    box = Box()
    steps = run_to_the_end(campaign(chunk=2, subject="", text="x"), box, ledger, csv)
    assert (len(box.mails), sum(step.skipped for step in steps)) == (3, 3)
    reasons = [reason.split(":")[0] for step in steps for reason in step.reasons]
    assert reasons == ["line 3", "line 5", "line 7"]


def test_bad_rows_are_named_once_when_the_queue_is_full(ledger):
    """A run that the queue cut short reports the bad rows before the cut, the next run those behind it."""
    csv = b"email\nfirst\na@example.org\nbad\nb@example.org\nworse\nc@example.org\n"
    box = Box(room=1)
    first = piece(campaign(subject="", text="x"), box, ledger, csv)
    box.room = 100
    [second] = run_to_the_end(box.rest.pop()[0], box, ledger, csv)
    assert [reason[:6] for reason in first.reasons + second.reasons] == ["line 2", "line 4", "line 6"]
    assert len(set(box.mails)) == len(box.mails) == 3


def test_template_is_checked_before_any_mail_is_sent(ledger):
    """A template that fails for each of the first rows stops the campaign before any mail is sent."""
    box = Box()
    with pytest.raises(BadInput, match=r"no mail of this campaign was sent: .* `nobody` is undefined"):
        piece(campaign(text="{{ nobody }}"), box, ledger)
    assert box.mails == []


def test_template_that_fails_for_one_row_stops_no_campaign(ledger):
    """A row with a value that its template cannot use is the fault of that row."""
    box = Box()
    csv = b"email,n\na@example.org,x\nb@example.org,2\nc@example.org,3\n"
    job = campaign(subject="", text="{{ n|int + 1 }}{% if n == 'x' %}{{ nobody }}{% endif %}")
    assert piece(job, box, ledger, csv).sent == 3


def test_file_that_changed_between_pieces_stops_the_campaign(ledger):
    """Rows are counted by place, so a file of another size is BadInput, with the row that was reached."""
    box = Box()
    piece(campaign(chunk=4), box, ledger)
    with pytest.raises(BadInput, match=r"changed .* at row 4"):
        piece(box.rest[0][0], box, ledger, PEOPLE + b"new@example.org\n")


def test_worker_without_an_outbox_says_so():
    """A campaign that runs where nothing may be sent fails with an advice."""
    with pytest.raises(FinalError, match="Millpond worker"):
        outbox_of(Context())

"""The bytes of a mail are the same on each run, without injected headers, and all lines end with CRLF."""

import re
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.control_characters import require_one_line
from millpond.tasks.email.message import Content, Envelope, LoadedAttachment, compose_mail
from millpond.tasks.errors import BadInput

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OURS = {
    *("Date", "Message-ID", "From", "To", "Subject"),
    *("MIME-Version", "Content-Type", "Content-Transfer-Encoding"),
}

#: Text that attacks headers: line breaks in every spelling, encoded words, separators, surrogates.
HOSTILE_PARTS = [
    "\r\nBcc: eve@example.org", "\n", "\r", "\0", "\x85", "\u2028", "\r\n\r\n<script>", "\r\n.\r\n",
    "=?utf-8?q?a=0D=0ABcc:_eve=40example.org?=", "=?utf-8?b?DQpCY2M6IGVAeC5vcmc=?=", "=?", "?=", ":", " ",
    "\t", "\ud800", '"', "\\", "<", ">", ",", ";", "(", "é", "漢", "\U0001f4a9", "a" * 90, " " * 90,
]  # fmt: skip
hostile = st.lists(
    st.one_of(
        st.sampled_from(HOSTILE_PARTS),
        st.text(max_size=20),
    ),
    max_size=8,
).map("".join)


def make_mail(**changes) -> SendEmail:
    return SendEmail(**{"sender": "ann@example.org", "to": "bob@example.org", "text": "hello", **changes})


def compose(
    job: SendEmail, *attachments: LoadedAttachment, task_id: str = "t-1", content: Content | None = None
) -> Envelope:
    content = content or Content(job.subject, job.text, job.html)
    return compose_mail(job, content, attachments, task_id=task_id, domain="mail.example.org", now=NOW)


def header_names(payload: bytes) -> list[str]:
    """Read the names as the simplest receiver would: lines up to the first empty one, folds left out."""
    head = payload.split(b"\r\n\r\n", 1)[0]
    return [line.split(b":")[0].decode() for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]


def test_same_task_gives_the_same_bytes():
    """A mail that is composed twice has the same bytes, and the Message-ID of its task."""
    job = make_mail(html="<p>hello</p>")
    attachment = LoadedAttachment("a.txt", None, b"data")
    first, second = compose(job, attachment), compose(job, attachment)
    assert first == second
    assert first.message_id == "<t-1@mail.example.org>"
    assert compose(job, attachment, task_id="t-2").message_id != first.message_id


@pytest.mark.parametrize("task_id", ["a b", "a>\r\nX: y", "", "é", "x" * 500])
def test_any_task_id_makes_a_message_id(task_id):
    """A task id that a Message-ID cannot have is replaced by its digest."""
    assert re.fullmatch(
        r"<[0-9a-f]{64}@mail\.example\.org>", compose(make_mail(), task_id=task_id).message_id
    )


def test_hidden_copies_are_in_the_envelope_alone():
    """The addresses in `bcc` are not in the message. A mail with only such recipients has none in `To`."""
    envelope = compose(make_mail(bcc="eve@example.org"))
    assert envelope.recipients == ("bob@example.org", "eve@example.org")
    assert b"eve" not in envelope.payload
    hidden = compose(SendEmail(sender="ann@example.org", bcc="eve@example.org", text="x"))
    assert b"To: undisclosed-recipients:;\r\n" in hidden.payload
    assert b"eve" not in hidden.payload


@given(subject=hostile, header=hostile, name=hostile, body=hostile)
def test_no_text_becomes_a_header(subject, header, name, body):
    """With any subject, header, name and body, the mail has the intended headers and no others."""
    try:
        job = make_mail(
            subject=subject, headers={"X-Note": header}, to=[f'"{name}" <bob@example.org>'], text=body
        )
    except (ValidationError, UnicodeEncodeError):
        return
    check_headers(compose(job).payload, OURS | {"X-Note"})


@given(subject=hostile, body=hostile)
def test_no_rendered_text_becomes_a_header(subject, body):
    """With any rendered subject and body, the mail has the intended headers, or is refused."""
    try:
        envelope = compose(make_mail(), content=Content(subject, body, None))
    except BadInput:
        return
    check_headers(envelope.payload, OURS)


def check_headers(payload: bytes, names: set[str]) -> None:
    assert sorted(header_names(payload)) == sorted(names)
    assert set(message_from_bytes(payload, policy=default).keys()) == names
    assert b"\0" not in payload
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", payload)
    assert max(map(len, payload.split(b"\r\n"))) <= 998


@given(st.text(alphabet=st.characters(exclude_categories=("Cc", "Zl", "Zp", "Cs")), max_size=200))
@example("=?utf-8?q?looks_encoded?=")
def test_subject_reads_back(subject):
    """A receiver reads the subject that was given."""
    read = message_from_bytes(compose(make_mail(subject=subject)).payload, policy=default)["Subject"]
    assert " ".join(str(read).split()) == " ".join(subject.split())


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=300))
def test_body_reads_back(text):
    """A receiver reads the text that was given, except for the form of line ends."""
    read = message_from_bytes(compose(make_mail(text=text)).payload, policy=default).get_content()
    assert re.sub("\r\n|\r", "\n", read).rstrip("\n") == re.sub("\r\n|\r", "\n", text).rstrip("\n")


@pytest.mark.parametrize(
    "subject", ["a\r\nBcc: eve@example.org", "a\nb", "é\nb", "a\0b", "a\u2028b", "\ud800"]
)
def test_rendered_subject_of_two_lines_is_bad_input(subject):
    """A rendered subject with a control character is refused."""
    with pytest.raises(BadInput, match="Subject"):
        compose(make_mail(), content=Content(subject, "x", None))


@pytest.mark.parametrize("body", ["a\0b", "\ud800"])
def test_rendered_body_that_cannot_be_mailed_is_bad_input(body):
    """A rendered body with a NUL or half a surrogate pair is refused."""
    for content in (Content("s", body, None), Content("s", None, body)):
        with pytest.raises(BadInput, match="body"):
            compose(make_mail(), content=content)


def test_half_a_surrogate_pair_in_a_header_is_called_that():
    """The reason is the decoding of the text; it read as a control character."""
    with pytest.raises(ValueError, match=r"^must be Unicode text, and holds half of a surrogate pair"):
        require_one_line("a\ud800")
    with pytest.raises(ValueError, match=r"^must be one line without control characters, and holds U\+2028"):
        require_one_line("a\u2028")


def test_long_words_in_headers_are_not_broken():
    """A List-Unsubscribe of 300 characters stays one word on one line."""
    url = f"<https://example.org/{'u' * 300}>"
    payload = compose(make_mail(headers={"List-Unsubscribe": url})).payload
    assert url.encode() in payload


def test_many_recipients_are_folded():
    """Eighty addresses are written in lines of at most 78 characters."""
    people = [f"Person Number {n} <person{n}@example.org>" for n in range(80)]
    payload = compose(make_mail(to=people)).payload
    assert max(map(len, payload.split(b"\r\n"))) <= 78
    assert message_from_bytes(payload, policy=default)["To"].addresses[79].addr_spec == "person79@example.org"


def test_attachments_keep_name_type_and_bytes():
    """An attachment arrives with its name in any script, its type, guessed or given, and its bytes."""
    loaded = [
        LoadedAttachment("bericht für é.pdf", None, bytes(range(256))),
        LoadedAttachment("x.bin", "image/png", b"--=_\r\n.\r\n"),
    ]
    message = message_from_bytes(compose(make_mail(html="<p>x</p>"), *loaded).payload, policy=default)
    seen = [
        (part.get_filename(), part.get_content_type(), part.get_content())
        for part in message.iter_attachments()
    ]
    assert seen == [
        ("bericht für é.pdf", "application/pdf", bytes(range(256))),
        ("x.bin", "image/png", b"--=_\r\n.\r\n"),
    ]
    assert message.get_body(("html",)).get_content().strip() == "<p>x</p>"


@pytest.mark.parametrize("name", ["m.eml", "M.EML", "page.mht", "page.mhtml", "x.nws"])
def test_attached_message_keeps_its_bytes(name):
    """A file whose ending means a message of its own is attached as its bytes, not as a message."""
    data = b"Subject: x\n\nbody\n"
    payload = compose(make_mail(), LoadedAttachment(name, None, data)).payload
    [part] = message_from_bytes(payload, policy=default).iter_attachments()
    assert (part.get_content_type(), part.get_content()) == ("application/octet-stream", data)
    assert b"\n" not in payload.replace(b"\r\n", b"")


@pytest.mark.parametrize("name", ["report.csv.gz", "page.html.bz2", "backup.tgz", "letter.txt.xz"])
def test_a_compressed_attachment_has_no_type_of_its_content(name):
    """A receiver opened a compressed CSV as text: the type was that of the file before its compression."""
    payload = compose(make_mail(), LoadedAttachment(name, None, b"\x1f\x8b")).payload
    [part] = message_from_bytes(payload, policy=default).iter_attachments()
    assert part.get_content_type() == "application/octet-stream"


def test_smtputf8_is_asked_for_only_where_needed():
    """Only a local part outside ASCII needs SMTPUTF8."""
    assert not compose(make_mail(to="Jörg <joerg@müller.de>")).needs_smtputf8
    for field in ("sender", "to", "bcc", "reply_to"):
        assert compose(make_mail(**{field: "jörg@example.org"})).needs_smtputf8

"""The contract of a mail checks addresses, headers, bodies and sizes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from millpond.tasks.contract import contract_of
from millpond.tasks.email.address import parse_mailbox
from millpond.tasks.email.contract import MAX_RECIPIENTS, SendCampaign, SendEmail
from millpond.tasks.settings import settings

BAD_ADDRESSES = [
    "", "ann", "ann@", "@example.org", "ann@example", "ann@localhost", "a b@example.org",
    "ann@exa mple.org", "ann@example.org, bob@example.org", '"a" <x@y.org>, "b" <z@w.org>',
    "ann@example.org <bob@example.org>", "ann@example.org\nBcc: eve@example.org",
    "Ann\r\n <ann@example.org>", "Ann\x00 <ann@example.org>", "Ann\u2028 <ann@example.org>",
    "Ann\x85 <ann@example.org>", "x" * 300 + "@example.org", "ann@[127.0.0.1]", "Ann <ann@example.org",
    "ann@example.org>",
]  # fmt: skip

REFUSED_HEADERS = [
    "Bcc", "bcc", "BCC", "To", "From", "Sender", "Subject", "Message-ID", "Date", "Content-Type",
    "content-id", "MIME-Version", "DKIM-Signature", "Received", "Return-Path", "Resent-To", "ARC-Seal",
    "X-A\r\nBcc", "X A", "X:A", "", "-X", "X\0", "X\u00e9", "x" * 77,
]  # fmt: skip


def make_mail(**changes) -> SendEmail:
    return SendEmail(**{"sender": "ann@example.org", "to": "bob@example.org", "text": "hello", **changes})


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("ann@example.org", "ann@example.org"),
        ("  ann@EXAMPLE.org ", "ann@example.org"),
        ("Ann Lee <ann@example.org>", "Ann Lee <ann@example.org>"),
        ("Lee, Ann <ann@example.org>", '"Lee, Ann" <ann@example.org>'),
        ('"Ann \\"A\\" Lee" <ann@example.org>', '"Ann \\"A\\" Lee" <ann@example.org>'),
        ("Jörg Müller <joerg@müller.de>", "Jörg Müller <joerg@xn--mller-kva.de>"),
        ("jörg@müller.de", "jörg@xn--mller-kva.de"),
        ("<ann@example.org>", "ann@example.org"),
    ],
)
def test_addresses_have_one_form(given, kept):
    """An address with or without a name is normalized, with its domain in ASCII, and then does not change."""
    assert make_mail(to=given).to == (kept,)
    assert make_mail(to=kept).to == (kept,)


@pytest.mark.parametrize("bad", BAD_ADDRESSES)
def test_bad_addresses_are_refused_in_every_field(bad):
    """Anything but one address on one line is refused as sender, recipient, hidden copy and reply address."""
    for field in ("sender", "to", "cc", "bcc", "reply_to"):
        with pytest.raises(ValidationError):
            make_mail(**{field: bad if field == "sender" else [bad]})


@given(st.text(max_size=60), st.sampled_from(["a@example.org", "é.x@example.org"]))
def test_any_name_is_kept_or_refused(name, address):
    """With any text before an address, the mailbox has the same address and is one line, or is refused."""
    try:
        kept = make_mail(to=[f"{name} <{address}>"]).to[0]
    except ValidationError:
        return
    assert parse_mailbox(kept).address == address
    assert kept.isprintable() or not set(kept) & set("\r\n\0\u2028\u2029\x85")
    assert make_mail(to=[kept]).to == (kept,)


@given(st.text(alphabet=st.characters(exclude_categories=("Cc", "Zl", "Zp", "Cs")), max_size=60))
def test_every_quoted_name_is_taken(name):
    """A name in double quotes may hold any character that is no control character."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_mailbox(make_mail(to=[f'"{escaped}" <a@example.org>']).to[0]).name == name.strip()


@pytest.mark.parametrize("name", REFUSED_HEADERS)
def test_headers_that_are_not_the_senders_are_refused(name):
    """A header that another field, the message or a server sets is refused, and so is an invalid name."""
    with pytest.raises(ValidationError):
        make_mail(headers={name: "value"})


@pytest.mark.parametrize(
    "value", ["a\nb", "a\rb", "a\r\nBcc: e@x.org", "\0", "", "  ", "x" * 901, "a " * 2001, "\u2028"]
)
def test_header_values_are_one_line_of_bounded_length(value):
    """A value with a line break or NUL, an empty and a too long one are refused with the header's name."""
    with pytest.raises(ValidationError, match="X-Note"):
        make_mail(headers={"X-Note": value})


def test_header_given_twice_is_refused():
    """Names that differ in case alone are the same header."""
    with pytest.raises(ValidationError, match="twice"):
        make_mail(headers={"X-Note": "a", "x-note": "b"})


@pytest.mark.parametrize(
    "changes",
    [
        {"text": None},
        {"template": "welcome"},
        {"text": None, "template": "../welcome"},
        {"text": "a\0b"},
        {"text": None, "template": "/etc/passwd"},
        {"text": None, "template": "a/../b"},
        {"text": None, "template": ".x"},
        {"subject": "a\nb"},
        {"subject": "x" * 901},
        {"text": "x" * 1_000_001},
        {"context": {"a": "x" * 70_000}},
        {"context": {"a": float("nan")}},
        {"to": []},
        {"to": ["b@example.org"] * (MAX_RECIPIENTS + 1)},
        {"attachments": ["a"] * 21},
        {"attachments": [{"url": "a", "name": "../b"}]},
        {"attachments": ["a\nb"]},
        {"attachments": [{"url": "a", "name": "=?utf-8?q?a=0Ab?="}]},
        {"attachments": [{"url": "a", "content_type": "x"}]},
        {"attachments": [{"url": "a", "content_type": "multipart/mixed"}]},
        {"unknown": 1},
        {"text": "\ud800"},
    ],
)
def test_what_cannot_be_mailed_is_refused(changes):
    """Two bodies or none, a template outside its folder, a size over a bound: refused."""
    with pytest.raises((ValidationError, UnicodeEncodeError)):
        make_mail(**changes)


def test_contract_survives_the_wire():
    """JSON by plain field names reads back the same; `from` may stand for `sender` on the way in."""
    sent = SendEmail(
        **{
            "from": "Ann <ann@example.org>",
            "to": ["bob@example.org"],
            "cc": "c@example.org",
            "template": "a/welcome",
            "context": {"n": 1},
            "attachments": ["s3://b/f.pdf"],
            "headers": {"X-A": "b"},
        }
    )
    for by_alias in (False, True):
        wire = json.loads(json.dumps(sent.model_dump(mode="json", by_alias=by_alias)))
        assert contract_of("email.send").model_validate(wire) == sent
    assert sent.sender == "Ann <ann@example.org>"


def test_recipients_are_each_named_once():
    """A recipient in `to` and in `bcc` gets one copy."""
    job = make_mail(to=["Bob <bob@example.org>", "c@example.org"], cc="bob@example.org", bcc="d@example.org")
    assert job.recipients == ("bob@example.org", "c@example.org", "d@example.org")


def test_bodies_are_redacted():
    """Neither text, html nor context is shown where arguments are, in repr or in redacted()."""
    job = make_mail(text="secret-1", html="secret-2", context={"password": "secret-3"})
    assert "secret" not in repr(job)
    assert "secret" not in json.dumps(job.redacted())
    campaign = SendCampaign(sender="a@example.org", source="x.csv", text="secret-4")
    assert "secret" not in repr(campaign) + json.dumps(campaign.redacted())


def test_campaign_carries_no_long_text():
    """The text of a campaign is limited, because each message has a copy. The error names the remedy."""
    with pytest.raises(ValidationError, match="folder of templates"):
        SendCampaign(sender="a@example.org", source="x.csv", html="x" * 64_001)


@pytest.mark.parametrize("address", ["ann@intranet", "ann@mail.local", "Ann <ann@a.corp.test>"])
def test_address_of_an_intranet_needs_the_setting(address, monkeypatch):
    """A domain outside the Internet must be in the setting."""
    with pytest.raises(ValidationError, match="MILLPOND_SMTP__INTRANET_DOMAINS"):
        SendEmail(sender="a@example.org", to=address, text="x")
    monkeypatch.setenv("MILLPOND_SMTP__INTRANET_DOMAINS", "intranet,local,corp.test")
    settings.cache_clear()
    assert SendEmail(sender="a@example.org", to=address, text="x").to == (address,)
    for wrong in ("ann@intranet2", "a b@intranet", "ann@-x.local", "ann@x..local", "ann@\r\n.local"):
        with pytest.raises(ValidationError):
            SendEmail(sender="a@example.org", to=wrong, text="x")

"""Check the mail ledger on every server that Millpond supports: one sender at a time, and never twice."""

import threading
from pathlib import Path

import pytest

from millpond.broker.connection import Store, connect
from millpond.broker.errors import BrokerAway
from millpond.tasks.email.ledger import ACCEPTED, MailLedger

DAY = 24 * 3600


@pytest.fixture
def ledger(each_store: Store) -> MailLedger:
    return MailLedger(each_store, DAY)


def test_first_claim_is_taken_and_the_second_is_busy(ledger):
    """While one delivery has the claim, another gets the time until its end; the owner may renew."""
    assert ledger.claim("m", "a", seconds=30).state == "taken"
    other = ledger.claim("m", "b", seconds=30)
    assert other.state == "busy"
    assert 10 < other.wait_seconds <= 30
    assert ledger.claim("m", "a", seconds=60).state == "taken"
    assert ledger.claim("m", "b", seconds=30).wait_seconds > 31


def test_sent_is_sent(ledger):
    """The outcomes of a mail recorded as sent are returned to every later claim."""
    ledger.claim("m", "a", seconds=30)
    ledger.record("m", "a", {"bob@example.org": ACCEPTED, "no@example.org": "550 never"}, sent=True)
    for owner in ("a", "b"):
        claim = ledger.claim("m", owner, seconds=30)
        assert claim.state == "sent"
        assert claim.outcomes == {"bob@example.org": ACCEPTED, "no@example.org": "550 never"}


def test_recorded_outcomes_are_kept_for_the_next_delivery(ledger):
    """After a part was recorded the claim is free at once, and the next owner gets the recipients served."""
    ledger.claim("m", "a", seconds=30)
    ledger.record("m", "a", {"bob@example.org": ACCEPTED}, sent=False)
    claim = ledger.claim("m", "b", seconds=30)
    assert (claim.state, claim.outcomes) == ("taken", {"bob@example.org": ACCEPTED})


def test_claim_of_the_dead_is_taken_over(ledger, eventually):
    """A claim that is not renewed ends by the server's clock, and the next delivery sends."""
    ledger.claim("m", "dead", seconds=0.2)
    assert ledger.claim("m", "b", seconds=30).state == "busy"
    eventually(lambda: ledger.claim("m", "b", seconds=30).state == "taken")
    assert ledger.claim("m", "dead", seconds=30).state == "busy"


def test_overtaken_owner_ends_nobody_elses_claim(ledger, eventually):
    """An owner that lost its claim may record the server's answers, but cannot end the new owner's claim."""
    ledger.claim("m", "late", seconds=0.05)
    eventually(lambda: ledger.claim("m", "b", seconds=30).state == "taken")
    ledger.record("m", "late", {"bob@example.org": ACCEPTED}, sent=False)
    ledger.forget("m", "late")
    claim = ledger.claim("m", "c", seconds=30)
    assert (claim.state, claim.outcomes) == ("busy", {"bob@example.org": ACCEPTED})
    ledger.record("m", "b", {"bob@example.org": "550 never"}, sent=True)
    assert ledger.claim("m", "c", seconds=30).outcomes == {"bob@example.org": ACCEPTED}


def test_forgotten_mail_may_be_sent_again(ledger):
    """After `forget` the mail has no claim and no record."""
    ledger.claim("m", "a", seconds=30)
    ledger.forget("m", "a")
    assert ledger.claim("m", "b", seconds=30).state == "taken"


def test_one_of_many_at_the_same_time_wins(ledger):
    """Of eight deliveries that claim at once, one sends."""
    states = []
    start = threading.Barrier(8)

    def claim(owner: str) -> None:
        start.wait(10)
        states.append(ledger.claim("m", owner, seconds=30).state)

    threads = [threading.Thread(target=claim, args=(f"o{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(states) == ["busy"] * 7 + ["taken"]


def test_entries_are_forgotten_after_the_days_set(ledger, each_store):
    """Every entry carries an expiry, a claim as well as a mail that was sent; one sent mail is small."""
    ledger.claim("claimed", "a", seconds=30)
    ledger.claim("sent", "a", seconds=30)
    ledger.record("sent", "a", {"somebody@example.org": ACCEPTED}, sent=True)
    keys = each_store.client.keys(f"{each_store.prefix}*")
    assert len(keys) == 2
    for key in keys:
        assert DAY - 60 < each_store.client.ttl(key) <= DAY
        assert each_store.client.memory_usage(key) < 300


def test_ledger_that_cannot_be_reached_says_so(tmp_path: Path):
    """A server that is away is BrokerAway, which the mail body retries, and nothing is sent."""
    nowhere = MailLedger(connect(f"redis+socket://{tmp_path}/none.sock", timeout_seconds=0.5), DAY)
    with pytest.raises(BrokerAway):
        nowhere.claim("m", "a", seconds=30)

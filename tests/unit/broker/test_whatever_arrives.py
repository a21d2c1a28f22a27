"""Whatever is on a queue, one message is one delivery: it runs or is a dead letter, and harms no other."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from redis.connection import Connection

from millpond.broker.consume import fetch_call
from millpond.broker.consume.fetch_call import Fetched, Reply
from millpond.broker.consume.in_flight import InFlightMessages
from millpond.broker.consume.queue_lease import FetchRequest
from millpond.broker.delivery import Delivery
from millpond.broker.keys import QueueKeys
from millpond.broker.outcomes import DeadLetter, Delay, PutAside, Succeeded
from millpond.broker.outgoing import compose

#: Texts of any characters, halves of surrogate pairs too, and long ones.
TEXTS = st.one_of(
    st.text(st.characters(), max_size=8),
    st.text(st.characters(categories=["Cs", "Cc", "Nd"]), max_size=4),
    st.just("x" * 2_000),
    st.sampled_from(["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-01-01", "soon"]),
)
VALUES: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)
NAMES = (
    "id",
    "task",
    "eta",
    "expires",
    "retries",
    "timelimit",
    "shadow",
    "kwargsrepr",
    "traceparent",
    "millpond",
)
HEADERS = st.dictionaries(st.sampled_from(NAMES), VALUES)
OWN = st.dictionaries(st.sampled_from(["batch", "once", "at", "link"]), VALUES)


def ask_all(delivery: Delivery) -> None:
    """Read the facts that a worker reads before it starts a delivery; an error is the message's fault."""
    message = delivery.message
    assert delivery.has_expired in (True, False)
    assert isinstance((delivery.tag, message.name, message.retries, delivery.ready_ms), tuple)
    assert len(message.time_limits) == 2
    assert len(message.arguments) == 3


@example({}, ("\ud800", "any.kind"), {}, "ok", "", b"")
@example({}, ("one", "\ud800"), {}, "aside", "\ud800", b"")
@example({}, ("one", "any.kind"), {"batch": "\ud800", "once": "\ud800"}, "ok", "", b"")
@example({"x": {"__type__": "decimal", "__value__": "ten"}}, ("one", "any.kind"), {}, "ok", "", b"")
@settings(max_examples=60, deadline=None)
@given(
    headers=HEADERS,
    names=st.tuples(TEXTS, TEXTS),
    own=OWN,
    end=st.sampled_from(["ok", "dead", "aside"]),
    told=TEXTS,
    raw=st.binary(),
)
def test_one_message_is_answered_for_by_itself(
    headers: dict[str, Any], names: tuple[str, str], own: dict[str, Any], end: str, told: str, raw: bytes
) -> None:
    """A strange message between two good ones keeps neither from its end, and each outcome can be written."""
    good = compose("any.kind", {}, queue="q", sent_at_ms=0, id="good").payload
    strange = json.loads(good)
    strange["headers"] |= {"id": names[0], "task": names[1], "millpond": own, **headers}
    texts = [good.encode(), json.dumps(strange).encode(), raw, good.encode()]
    in_flight = InFlightMessages()
    lease = in_flight.lease_on(QueueKeys("q"))
    reply = Reply(0, True, 0, -1, 0, [Fetched(f"{n}/1/0", 0, text) for n, text in enumerate(texts)])
    fetch_call.accept_messages(lease, reply, ask_all)
    for delivery in list(lease.in_flight.values()):
        kind = delivery.message.kind
        result = json.dumps(told)  # a result is kept as JSON in ASCII
        outcome = {"ok": Succeeded(result), "dead": DeadLetter(told, told), "aside": PutAside(kind, told, 0)}[
            end
        ]
        assert lease.queue_outcome(delivery, outcome)
    ends = {delivery.token: outcome for delivery, outcome in lease.outcomes}
    assert len(ends) == 4
    assert {type(ends["0/1/0"]), type(ends["3/1/0"])} <= {Succeeded, DeadLetter, PutAside, Delay}
    words = fetch_call.fetch_command(FetchRequest(lease, 0, 0, lease.take_outcomes()), lease_ms=1)
    assert Connection().pack_command(*words)


def test_what_is_a_dead_letter_at_its_receipt_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A message whose ETA is no time, and one whose receipt raises an error, are logged in a line each."""
    texts = [compose("any.kind", {}, queue="q", sent_at_ms=0, id=id).payload for id in ("eta", "error")]
    undated = json.loads(texts[0])
    undated["headers"]["eta"] = "tomorrow"
    payloads = (json.dumps(undated).encode(), texts[1].encode())
    lease = InFlightMessages().lease_on(QueueKeys("q"))
    reply = Reply(0, True, 0, -1, 0, [Fetched(f"{n}/1/0", 0, text) for n, text in enumerate(payloads)])

    def fail(_delivery: Delivery) -> None:
        raise ValueError("it is odd")

    fetch_call.accept_messages(lease, reply, fail)
    assert [type(outcome) for _, outcome in lease.outcomes] == [DeadLetter, DeadLetter]
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("Message eta dead-lettered: invalid message: ")
    assert second == "Message error dead-lettered: invalid message: ValueError: it is odd"

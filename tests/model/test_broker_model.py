"""The scripts against a plain model, step by step, on a real server whose clock the test moves."""

import json
from collections import Counter
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from moved_clock import CLOCK
from plain_queue import STEPS, Batch, New, PlainQueue, Settled
from seen_queue import Seen, look, text

from millpond.broker import limits
from millpond.broker import publish as broker_publish
from millpond.broker.batches import batch_callback, record
from millpond.broker.connection import Store
from millpond.broker.consume import fetch_call
from millpond.broker.consume.queue_lease import FetchRequest, QueueLease
from millpond.broker.delivery import Delivery
from millpond.broker.errors import BrokerError
from millpond.broker.inspect import dead_letters, purge
from millpond.broker.keys import PRIORITY_STEPS, QueueKeys, batch_key
from millpond.broker.outcomes import (
    Cancelled,
    Continued,
    DeadLetter,
    Delay,
    Expired,
    Outcome,
    Redeliver,
    Release,
    Retry,
    Succeeded,
    encode_outcome,
)
from millpond.broker.outgoing import Outgoing, compose
from millpond.broker.scripts import script
from tests.harness.manual_consumer import delivery_of

QUEUE, LEASE_MS = "mill", 15_000
CONSUMERS = [f"consumer-{n}" for n in range(3)]
TICKETS = ["1.a", "2.b", "9.c"]
LIMITS: dict[str, list[Any]] = {
    "bound": [None, 1, 3, 8],
    "delayed_bound": [None, 2],
    "max_deliveries": [None, 1, 2],
    "in_flight": [None, 1, 3],
    "rate": [None, 8, 16],
    "burst": [None, 1, 4],
    "paused": [None, True],
    "dead_bound": [None, 2],
    "message_bytes": [None, 1_500],
}


class Mill(RuleBasedStateMachine):
    """Do the same to the server and to the model, and compare."""

    def __init__(self, server: Store) -> None:
        super().__init__()
        self.store = Store(server.client, f"m-{uuid4().hex[:8]}:")
        self.keys = QueueKeys(QUEUE, self.store.prefix)
        # A whole second of the real time, for the server dates dead letters by its own clock.
        self.without_login, self.now = PlainQueue(), server.client.time()[0] * 1000
        self.leases = {name: QueueLease(self.keys, name) for name in CONSUMERS}
        self.batches: list[str] = []
        self.wait(0)

    def teardown(self) -> None:
        keys = list(self.store.client.scan_iter(f"{self.store.prefix}*", count=1000))
        if keys:
            self.store.client.delete(*keys)

    # Producers ----------------------------------------------------------------------------------------------

    @rule(
        policy=st.sampled_from(["reject", "block", "shed", "exempt"]),
        priority=st.integers(0, 9),
        shape=st.lists(
            st.tuples(
                st.sampled_from([None, None, None, -5, 1, 125, 1_000, 60_000]),  # due in ms
                st.sampled_from(["", "", "a", "b", "a!", "b!"]),  # claim; with ! it ends with its task
                st.sampled_from([0, 0, 0, 3_000]),  # padding
            ),
            min_size=1,
            max_size=4,
        ),
        batch=st.integers(-2, 2),
        ticket=st.sampled_from(["", *TICKETS]),
        stays=st.booleans(),
    )
    def publish(
        self,
        policy: Any,
        priority: int,
        shape: list[tuple[int | None, str, int]],
        batch: int,
        ticket: str,
        stays: bool,
    ) -> None:
        ticket = ticket if policy == "block" else ""
        chosen = self.batches[batch] if 0 <= batch < len(self.batches) else None
        outgoing = [self._compose(*each, priority=priority, batch=chosen) for each in shape]
        self.store.client.delete(self.keys.wake)
        before = self.without_login.depth
        caller = broker_publish.Caller(ticket, stays)
        outcomes = broker_publish.publish(self.store, outgoing, policy=policy, caller=caller)
        new = [New(o.payload, o.id, o.due_ms, o.claim or "", not o.claim_ms) for o in outgoing]
        step = max(index for index, lowest in enumerate(PRIORITY_STEPS) if priority >= lowest)
        expected = self.without_login.publish(
            policy, step, chosen or "", new, self.now, ticket=ticket, stays=stays
        )
        assert list(map(_word, outcomes)) == expected
        ready = sum(w == "taken" and (n.due or 0) <= self.now for w, n in zip(expected, new, strict=True))
        if ready:
            assert self.store.client.llen(self.keys.wake) >= 1, "nobody is woken for what was sent"
        bound = self.without_login.limit("bound", 0)
        if policy != "exempt" and bound:
            assert self.without_login.depth <= max(before, bound)

    def _compose(
        self,
        due: int | None,
        claim: str,
        padding: int,
        *,
        priority: int = 0,
        batch: str | None = None,
        id: str | None = None,
    ) -> Outgoing:
        return compose(
            "model.task",
            {"padding": "x" * padding} if padding else {},
            queue=QUEUE,
            sent_at_ms=self.now,
            priority=priority,
            due_ms=None if due is None else self.now + due,
            batch=batch,
            claim=claim.rstrip("!") or None,
            claim_ms=0 if claim.endswith("!") else 3_600_000,
            id=id,
        )

    @rule(ticket=st.sampled_from(TICKETS))
    def pick_up_a_call(self, ticket: str) -> None:
        self.store.client.delete(self.keys.grant_list(ticket))
        self.without_login.pick_up(ticket)

    @rule()
    def open_batch(self) -> None:
        if len(self.batches) < 3:
            id = str(uuid4())
            told = batch_callback.callback_header(id, "of the model")
            then = compose("model.then", {"of": id}, queue=id, sent_at_ms=batch_callback.UNKNOWN, after=told)
            self.batches.append(record.open_batch(self.store, id=id, then=then))
            self.without_login.batches[self.batches[-1]] = Batch()

    @rule(batch=st.integers(0, 2))
    def close_batch(self, batch: int) -> None:
        if batch < len(self.batches):
            record.close_batch(self.store, self.batches[batch])
            self.without_login.close_batch(self.batches[batch])

    # Consumers ----------------------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(CONSUMERS),
        credit=st.integers(0, 4),
        slots=st.integers(0, 4),
        chosen=st.lists(
            st.tuples(
                st.integers(0, 9),
                st.sampled_from(
                    [
                        Succeeded(),
                        Succeeded('{"value":1}'),
                        Cancelled("ended"),
                        Cancelled(started=False),
                        Expired(),
                        Continued(),
                        DeadLetter("why", "it failed"),
                        Retry("", 0),
                        Delay(0),
                        Release(),
                        Redeliver(),
                    ]
                ),
                st.sampled_from([-10, 125, 5_000]),
            ),
            max_size=4,
        ),
        reply_arrives=st.sampled_from([True, True, True, False]),
    )
    def turn(self, name: str, credit: int, slots: int, chosen: list[Any], reply_arrives: bool) -> None:
        lease = self.leases[name]
        was_new = not lease.registered
        for index, outcome, due in chosen:
            if lease.in_flight:
                delivery = list(lease.in_flight.values())[index % len(lease.in_flight)]
                lease.queue_outcome(delivery, self._dated(outcome, self.now + due, delivery))
        taken = lease.take_outcomes()
        call = FetchRequest(lease, credit, min(slots, credit), taken)
        reply = fetch_call.parse_reply(self._run(fetch_call.fetch_command(call, lease_ms=LEASE_MS)))
        settled = [_settled(delivery, outcome) for delivery, outcome in taken]
        slots = min(slots, credit)
        leased, late, fetched = self.without_login.turn(
            name, LEASE_MS, credit, slots, was_new, settled, self.now, lease.calls
        )
        assert (reply.lease, reply.late) == (leased, late)
        assert [(f.token, f.deliveries, f.payload.decode()) for f in reply.messages] == fetched
        if not reply_arrives:
            lease.registered = True
            lease.put_back_outcomes(taken)
        elif not leased:
            lease.in_flight.clear()
            lease.start_anew(name)
        else:
            fetch_call.update_lease(call, reply)
            for token, _, message in fetched:
                plain = self.without_login
                claim, id = plain.claim_of.get(message, ""), plain.id_of[message]
                lease.add_delivery(
                    delivery_of(token, id, batch=plain.batch_of[message] or None, unique_key=claim)
                )
            self._check_when_to_look_again(reply.next_ms, credit, len(fetched))

    def _dated(self, outcome: Outcome, due: int, delivery: Delivery) -> Outcome:
        message = delivery.message
        match outcome:
            case Retry():
                key = message.unique_key and f"{message.unique_key}!"
                return Retry(self._compose(None, key, 0, id=message.id).payload, due)
            case Delay():
                return Delay(due)
        return outcome

    def _check_when_to_look_again(self, next_ms: int, credit: int, took: int) -> None:
        if self.without_login.delayed:
            assert 0 <= next_ms <= max(0, min(self.without_login.delayed.values()) - self.now)
        limited = any(self.without_login.limit(name, 0) for name in ("paused", "rate", "in_flight"))
        if self.without_login.depth and credit and took == credit and not limited:
            assert next_ms == 0, "messages wait, and nobody is told"

    def _run(self, words: tuple[Any, ...]) -> Any:
        return script("settle_and_fetch").run(
            self.store.client, words[3 : 3 + words[2]], words[3 + words[2] :]
        )

    @rule(name=st.sampled_from(CONSUMERS))
    def renew(self, name: str) -> None:
        held = script("renew_lease").run(self.store.client, self.keys.for_scripts, (name, LEASE_MS))
        assert bool(held) == self.without_login.renew(name, LEASE_MS, self.now)

    @precondition(lambda self: self.without_login.consumers)
    @rule(name=st.sampled_from(CONSUMERS))
    def resume(self, name: str) -> None:
        lease = self.leases[name]
        known = [*lease.in_flight, *(delivery.token for delivery, _ in lease.outcomes)]
        reply = script("resume_lease").run(
            self.store.client, self.keys.for_scripts, (name, LEASE_MS, name, lease.last_sequence, *known)
        )
        held, returned, forgotten, _until_ms, *missing = reply
        found = held, returned, {token.decode() for token in missing}
        assert found == self.without_login.resume(name, LEASE_MS, set(known), self.now)
        assert forgotten == 0
        if not reply[0] and lease.registered:
            lease.in_flight.clear()
            lease.start_anew(name)

    @rule(name=st.sampled_from(CONSUMERS))
    def leave(self, name: str) -> None:
        returned = script("end_lease").run(self.store.client, self.keys.for_scripts, (name,))
        assert returned == self.without_login.leave(name)
        self.leases[name] = QueueLease(self.keys, name)

    # People and time ----------------------------------------------------------------------------------------

    @rule(change=st.sampled_from([(name, value) for name, values in LIMITS.items() for value in values]))
    def set_limit(self, change: tuple[str, Any]) -> None:
        name, value = change
        limits.change_limits(self.store, QUEUE, **{name: value})
        self.without_login.limits.pop(name, None)
        if value is not None:
            self.without_login.limits[name] = value
        if name == "bound":
            self.without_login.call_waiting(self.now)

    @rule()
    def purge_queue(self) -> None:
        assert purge.purge_queue(self.store, QUEUE) == self.without_login.purge_queue(self.now)

    @precondition(lambda self: self.without_login.dead)
    @rule(index=st.integers(0, 20), drop=st.booleans())
    def requeue_or_purge(self, index: int, drop: bool) -> None:
        index %= len(self.without_login.dead)
        id = look(self.store, self.keys, CONSUMERS).dead[index][0]
        if drop:
            assert dead_letters.purge(self.store, QUEUE, id)
            self.without_login.purge(index)
        elif self.without_login.requeue(index):
            assert dead_letters.requeue(self.store, QUEUE, id)
            assert not dead_letters.requeue(self.store, QUEUE, id), "a second requeue finds nothing"
        else:
            with pytest.raises(BrokerError, match="requeue it when that task has ended"):
                dead_letters.requeue(self.store, QUEUE, id)

    @rule(ms=st.sampled_from([0, 125, 1_000, 4_875, 6_000, 16_000, 3_600_000, -1_000, -60_000, -3_600_000]))
    def wait(self, ms: int) -> None:
        self.now += ms
        self.store.client.set(CLOCK, self.now)

    # The invariants after every step ------------------------------------------------------------------------

    @invariant()
    def the_server_is_as_the_model(self) -> None:
        seen, plain = look(self.store, self.keys, CONSUMERS), self.without_login
        assert seen.ready == [list(each) for each in plain.ready]
        assert seen.delayed == plain.delayed
        letters = [(f["message"], f["reason"], int(f["deliveries"]), int(f["step"])) for _, f in seen.dead]
        assert letters == [(d.message, d.reason, d.deliveries, d.step) for d in plain.dead]
        assert seen.leases == {name: c.lease_until for name, c in plain.consumers.items()}
        assert seen.held == {name: c.held for name, c in plain.consumers.items() if c.held}
        assert seen.counters == {name: value for name, value in plain.counters.items() if value}
        assert seen.line == plain.line
        assert seen.called == {ticket: f"{n} {until}" for ticket, (n, until) in plain.called.items()}
        unique_prefix = f"{self.keys.prefix}millpond:{{{self.keys.queue}}}:once:"
        claims = self.store.client.mget([f"{unique_prefix}{name}" for name in "ab"])
        assert claims == [(plain.claims.get(name) or "").encode() or None for name in "ab"]
        self._in_one_place(seen)

    def _in_one_place(self, seen: Seen) -> None:
        """Every message taken is in exactly one place, or settled, or dropped from the dead letters."""
        messages = seen.messages()
        assert not [m for m, times in Counter(messages).items() if times > 1]
        taken = seen.counters.get("published", 0)
        assert taken == len(messages) + seen.counters.get("settled", 0) + self.without_login.dropped

    @invariant()
    def the_batches_are_as_the_model(self) -> None:
        for batch in self.batches:
            found = text(self.store.client.hgetall(batch_key(batch, self.store.prefix)))
            plain = self.without_login.batches[batch]
            names = ("sent", "settled", "succeeded", "failed", "cancelled", "expired")
            assert {name: int(found.get(name, 0)) for name in names} == {n: plain.counts[n] for n in names}
            assert ("closed_at" in found, "completed_at" in found) == (plain.closed, plain.completed)
            self._is_followed_once(batch, plain)

    def _is_followed_once(self, batch: str, plain: Batch) -> None:
        """The task that follows a batch is on its queue once the batch was complete, and once only."""
        sent = self.store.client.lrange(self.store.prefix + batch, 0, -1)
        assert len(sent) == (plain.followed is not None)
        for message in sent:
            summary = record.parse_completed_batch(json.loads(message)["headers"]["millpond"]["after"])
            assert summary is not None
            assert summary.id == batch
            assert {name: getattr(summary, name) for name in record.COUNTS} == {
                name: (plain.followed or {}).get(name, 0) for name in record.COUNTS
            }


def _settled(delivery: Delivery, outcome: Outcome) -> Settled:
    action, state, _detail, due, text = encode_outcome(outcome)
    return Settled(delivery.token, action, state, due, text)


def _word(outcome: broker_publish.Answer) -> str:
    match outcome:
        case broker_publish.Accepted():
            return "taken"
        case broker_publish.Full(delayed=delayed):
            return "full:delayed" if delayed else "full"
        case broker_publish.Closed():
            return "closed"
        case broker_publish.Duplicate(_, owner):
            return f"duplicate:{owner}"


def _run(store: Store, examples: int) -> None:
    checks = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        # Shrinking costs minutes, for every step asks a server; the steps are printed as they were.
        phases=(Phase.reuse, Phase.generate),
        report_multiple_bugs=False,
    )
    machine: Any = lambda: Mill(store)  # noqa: E731
    run_state_machine_as_test(machine, settings=checks)


def test_the_scripts_do_what_the_model_does(store: Store, clock: None) -> None:
    """After any order of sends, fetches, settlements and losses, each message is where the model has it."""
    _run(store, 60)


@pytest.mark.slow
@pytest.mark.evidence
@pytest.mark.timeout(900)
def test_the_scripts_do_what_the_model_does_for_long(each_store: Store, clock: None) -> None:
    """The scripts agree with the model on every server, for thousands of interleavings."""
    _run(each_store, 400)


def test_the_model_has_every_step(clock: None) -> None:
    """The model knows as many priority steps as the queue has lists."""
    assert len(PRIORITY_STEPS) == STEPS

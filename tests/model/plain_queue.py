"""Model one queue in plain Python: the place of each message, and the counters.

Written from the scripts' promises (their headers), not from their code: lists, dictionaries, a clock. A
message is in exactly one of `ready`, `delayed`, a consumer's `held`, `dead`; or it is settled, or was dropped
from the dead letters.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

STEPS = 4
CALL_MS, PICK_UP_MS, LATE_MS, LOTS = 2_000, 250, 60_000, 16


@dataclass
class Consumer:
    """Messages under a lease; `held` is token -> message, oldest first.

    A lease that was lengthened because no consumer had spoken ends half a millisecond past a whole one.
    """

    lease_until: float
    held: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dead:
    """A dead letter."""

    message: str
    reason: str
    deliveries: int
    step: int


@dataclass
class Batch:
    """The counts of a batch."""

    closed: bool = False
    completed: bool = False
    #: The task that follows it was sent, with these counts.
    followed: dict[str, int] | None = None
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class New:
    """A message to publish."""

    message: str
    id: str
    due: int | None = None
    claim: str = ""
    #: The claim ends with the task, not at a time of its own.
    ends: bool = False


@dataclass(frozen=True)
class Settled:
    """The outcome of a delivery, as settle_and_fetch.lua is given it."""

    token: str
    action: str
    state: str = "succeeded"
    due: int = 0
    text: str = ""


class PlainQueue:
    """The queue; every method is one script, at the time `now`."""

    def __init__(self) -> None:
        self.ready: list[deque[str]] = [deque() for _ in range(STEPS)]
        self.delayed: dict[tuple[int, str], int] = {}
        self.dead: list[Dead] = []
        self.consumers: dict[str, Consumer] = {}
        self.deliveries: Counter[str] = Counter()
        self.limits: dict[str, float] = {}
        self.counters: Counter[str] = Counter()
        self.batches: dict[str, Batch] = {}
        self.batch_of: dict[str, str] = {}
        self.claims: dict[str, str] = {}
        self.claim_of: dict[str, str] = {}
        self.id_of: dict[str, str] = {}
        self.line: list[str] = []
        self.called: dict[str, tuple[int, int]] = {}
        #: Calls that no producer has taken from its list.
        self.calls: set[str] = set()
        self.late: dict[str, int] = {}
        self.dropped = 0
        self.spoken_at: int | None = None
        #: When consumers spoke again after a silence.
        self.silent_till = 0
        self.bucket: tuple[float, int] | None = None
        #: The number of the call that fetches.
        self.call = 0

    @property
    def depth(self) -> int:
        """Count the ready messages."""
        return sum(map(len, self.ready))

    def limit(self, name: str, default: float) -> float:
        """Return a limit."""
        return self.limits.get(name, default)

    # Publishing ---------------------------------------------------------------------------------------------

    def publish(
        self,
        policy: str,
        step: int,
        batch: str,
        items: Iterable[New],
        now: int,
        *,
        ticket: str = "",
        stays: bool = False,
    ) -> list[str]:
        """Accept the messages that there is room for; a ticket is a place in the line."""
        lined = policy not in ("exempt", "shed") and bool(self.line or self.called)
        granted = lined and (ticket in self.called or ticket in self.late)
        self.room = self._room_for(ticket, now) if lined else self._free
        answers = [self._publish(policy, step, batch, item, now) for item in items]
        taken = answers.count("taken")
        if ticket and stays and "full" in answers:
            self.called.pop(ticket, None)
            self.late.pop(ticket, None)
            if ticket not in self.line:
                self.line.insert(0 if granted and not taken else len(self.line), ticket)
            self.call_waiting(now)
        elif lined:
            self._leave_line(ticket)
            self.call_waiting(now)
        self.counters["published"] += taken
        duplicates = sum(answer.startswith("duplicate:") for answer in answers)
        self.counters["duplicates"] += duplicates
        self.counters["refused"] += len(answers) - taken - duplicates
        if taken:
            self.counters["high_water"] = max(self.counters["high_water"], self.depth)
        return answers

    def _publish(self, policy: str, step: int, batch: str, item: New, now: int) -> str:
        if item.claim in self.claims:
            return f"duplicate:{self.claims[item.claim]}"
        if batch and policy != "exempt" and (batch not in self.batches or self.batches[batch].closed):
            return "closed"
        due = item.due if item.due is not None and item.due > now else None
        full = self._refusal(policy, due)
        if full:
            return full
        if item.claim:
            self.claims[item.claim] = item.id
            if item.ends:
                self.claim_of[item.message] = item.claim
        self.id_of[item.message] = item.id
        self.batch_of[item.message] = batch
        if batch in self.batches:
            self.batches[batch].counts["sent"] += 1
        if due is None:
            self.ready[step].append(item.message)
            self.room -= 1
        else:
            self.delayed[step, item.message] = due
        return "taken"

    def _refusal(self, policy: str, due: int | None) -> str:
        if policy == "exempt":
            return ""
        if due is not None:
            bound = self.limit("delayed_bound", 1_000_000)
            return "full:delayed" if bound and len(self.delayed) >= bound else ""
        if self.room >= 1:
            return ""
        if policy != "shed":
            return "full"
        step = max(step for step in range(STEPS) if self.ready[step])
        oldest = self.ready[step].popleft()
        self.deliveries.pop(oldest, None)
        self._bury(step, oldest, "shed", 0)
        self.counters["shed"] += 1
        return ""

    # The line of producers ----------------------------------------------------------------------------------

    @property
    def _free(self) -> float:
        return self.limit("bound", 0) - self.depth if self.limit("bound", 0) else float("inf")

    def _kept(self, now: int, *, but: str = "") -> int:
        return sum(n for ticket, (n, until) in self.called.items() if ticket != but and until >= now)

    def _room_for(self, ticket: str, now: int) -> float:
        """Return the room granted to a producer, or the room that no ticket waits for, if that is more."""
        if not self.limit("bound", 0):
            return self._free
        unclaimed = 0 if self.line else self._free - self._kept(now, but=ticket)
        return min(self._free, max(self.called.get(ticket, (0, 0))[0], unclaimed))

    def call_waiting(self, now: int) -> None:
        """Call the head of the line while there is room for a fair share of its messages."""
        if not self.line and not self.called:
            return
        spare = 2 * self._forget_late(now)
        room, bound = self._free - self._kept(now), self.limit("bound", 0)
        lot = max(1, bound // LOTS) if bound else float("inf")
        while self.line:
            n = min(int(self.line[0].split(".")[0]), max(lot, room // len(self.line)))
            if n > room:
                if not spare:
                    return
                spare -= 1
            self.calls.add(self.line[0])
            self.called[self.line.pop(0)] = int(n), now + CALL_MS
            room -= n

    def _forget_late(self, now: int) -> int:
        self.late = {ticket: until for ticket, until in self.late.items() if now < until <= now + LATE_MS}
        self.called = {t: (n, min(until, now + CALL_MS)) for t, (n, until) in self.called.items()}
        unacknowledged = [
            ticket
            for ticket, (_, until) in self.called.items()
            if until - now <= CALL_MS - PICK_UP_MS and ticket in self.calls
        ]
        late = [
            ticket for ticket, (_, until) in self.called.items() if ticket in unacknowledged or until < now
        ]
        for ticket in late:
            del self.called[ticket]
            self.late[ticket] = now + LATE_MS
        return len(unacknowledged)

    def pick_up(self, ticket: str) -> None:
        """Take a call from a producer's list."""
        self.calls.discard(ticket)

    def _leave_line(self, ticket: str) -> None:
        self.called.pop(ticket, None)
        self.late.pop(ticket, None)
        if ticket in self.line:
            self.line.remove(ticket)

    # Ending -------------------------------------------------------------------------------------------------

    def _bury(self, step: int, message: str, reason: str, deliveries: int) -> None:
        self.dead.append(Dead(message, reason, deliveries, step))
        self.counters["dead"] += 1
        over = max(0, len(self.dead) - int(self.limit("dead_bound", 10_000)))
        self.dropped += over
        del self.dead[:over]
        self._record(message, "failed")
        self._release_claim(message)

    def _release_claim(self, message: str) -> None:
        claim = self.claim_of.get(message)
        if claim and self.claims.get(claim) == self.id_of[message]:
            del self.claims[claim]

    def _record(self, message: str, state: str) -> None:
        batch = self.batches.get(self.batch_of.get(message, ""))
        if batch is not None and state:
            batch.counts[state] += 1
            batch.counts["settled"] += 1
            self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        if batch.closed and batch.counts["sent"] == batch.counts["settled"]:
            batch.completed = True
            if batch.followed is None:
                batch.followed = dict(batch.counts)

    def _put_back(self, step: int, message: str) -> None:
        self.ready[step].appendleft(message)

    def _redeliver(self, step: int, message: str) -> None:
        self.deliveries[message] += 1
        if self.deliveries[message] >= self.limit("max_deliveries", 5):
            self._bury(step, message, "too many deliveries", self.deliveries.pop(message))
        else:
            self._put_back(step, message)
            self.counters["redelivered"] += 1

    def _release(self, consumer: Consumer, pass_on: Callable[[int, str], None]) -> int:
        """Release all messages of a consumer so that the oldest is next to leave."""
        for token, message in reversed(consumer.held.items()):
            pass_on(step_of(token), message)
        count = len(consumer.held)
        consumer.held.clear()
        return count

    def _settle(self, consumer: Consumer, s: Settled) -> bool:
        if s.token not in consumer.held:
            self.counters["late"] += 1
            return False
        step, message = step_of(s.token), consumer.held.pop(s.token)
        if s.action in ("return", "drop") and self.bucket is not None:
            self.bucket = self.bucket[0] + 1, self.bucket[1]
        match s.action:
            case "settle" | "drop":
                self.deliveries.pop(message, None)
                self.counters["settled"] += 1
                self.counters["expired"] += s.state == "expired"
                if s.state:
                    self._release_claim(message)
                self._record(message, s.state)
            case "bury":
                self._bury(step, message, s.text, self.deliveries.pop(message, 0) + 1)
            case "replace":
                self.deliveries.pop(message, None)
                for facts in (self.batch_of, self.claim_of, self.id_of):
                    facts[s.text] = facts.get(message, "")
                self.delayed[step, s.text] = s.due
                self.counters["retried"] += 1
            case "delay":
                self.delayed[step, message] = s.due
            case "return":
                self._put_back(step, message)
                self.counters["returned"] += 1
            case "redeliver":
                self._redeliver(step, message)
        return True

    # A consumer's turn --------------------------------------------------------------------------------------

    def turn(
        self,
        name: str,
        lease: int,
        credit: int,
        slots: int,
        new: bool,
        settled: list[Settled],
        now: int,
        call: int = 0,
    ) -> tuple[bool, int, list[tuple[str, int, str]]]:
        """Settle, sweep, promote, fetch; return (lease held, number of late outcomes, fetched messages)."""
        self.call = call
        if not new and name not in self.consumers:
            self.counters["late"] += len(settled)
            return False, len(settled), []
        consumer = self.consumers.setdefault(name, Consumer(0))
        consumer.lease_until = now + lease
        late = sum(not self._settle(consumer, s) for s in settled)
        self._sweep(now, lease)
        self._promote(now)
        fetched = self._fetch(consumer, credit, slots, now) if credit else []
        self.call_waiting(now)
        return True, late, fetched

    def _sweep(self, now: int, lease: int) -> None:
        self._speak(now, lease)
        expired = [(c.lease_until, name) for name, c in self.consumers.items() if c.lease_until < now]
        for _, name in sorted(expired)[:10]:
            grace = self.silent_till + max(5_000, lease // 2)
            if self.consumers[name].lease_until % 1 == 0 and now <= grace:
                self.consumers[name].lease_until = grace + 0.5
            else:
                self._release(self.consumers.pop(name), self._redeliver)
                self.counters["leases_lost"] += 1

    def _speak(self, now: int, lease: int) -> None:
        silence = 0 if self.spoken_at is None else now - self.spoken_at
        self.spoken_at = now
        if silence > lease / 2:
            self.silent_till = now
        if silence < 0:
            self.silent_till = 0
            for consumer in self.consumers.values():
                consumer.lease_until = min(consumer.lease_until, now + lease)

    def _promote(self, now: int) -> None:
        due = sorted((at, f"{step}{message}") for (step, message), at in self.delayed.items() if at <= now)
        for _, entry in due[:100]:
            step, message = int(entry[0]), entry[1:]
            del self.delayed[step, message]
            self.ready[step].append(message)

    def allowance(self, credit: int, slots: int, now: int) -> int:
        """Return the number of messages that the limits allow."""
        if self.limit("paused", 0):
            return 0
        rate, in_flight = self.limit("rate", 0), int(self.limit("in_flight", 0))
        if not rate and not in_flight:
            return credit
        allowed = min(credit, slots)
        if in_flight:
            allowed = min(allowed, max(0, in_flight - sum(len(c.held) for c in self.consumers.values())))
        if rate and allowed:
            burst = self.limit("burst", max(1, rate))
            had, at = self.bucket or (burst, now)
            tokens = min(burst, had + max(0, now - at) * rate / 1000)
            self.bucket = tokens, now
            allowed = min(allowed, int(tokens))
        return allowed

    def _fetch(self, consumer: Consumer, credit: int, slots: int, now: int) -> list[tuple[str, int, str]]:
        allowed, fetched = self.allowance(credit, slots, now), []
        for _ in range(min(allowed, self.depth)):
            step = min(step for step in range(STEPS) if self.ready[step])
            message = self.ready[step].popleft()
            self.counters["fetched"] += 1
            if self.bucket is not None and self.limit("rate", 0):
                self.bucket = self.bucket[0] - 1, self.bucket[1]
            if len(message) > self.limit("message_bytes", 10_000_000):
                self._bury(step, message, f"too long: {len(message)} bytes", 0)
            else:
                token = f"{self.counters['fetched']}/{self.call}/{step}"
                consumer.held[token] = message
                fetched.append((token, self.deliveries.get(message, 0), message))
        return fetched

    # The other scripts --------------------------------------------------------------------------------------

    def renew(self, name: str, lease: int, now: int) -> bool:
        """Renew a lease."""
        if name not in self.consumers:
            return False
        self._speak(now, lease)
        self.consumers[name].lease_until = now + lease
        self.counters["renewed"] += 1
        return True

    def resume(self, name: str, lease: int, known: set[str], now: int) -> tuple[int, int, set[str]]:
        """Renew a lease; messages of a lost reply go back, and known ones that are missing are returned."""
        if name not in self.consumers:
            return 0, 0, known
        consumer = self.consumers[name]
        consumer.lease_until = now + lease
        unknown = Consumer(0, {t: m for t, m in consumer.held.items() if t not in known})
        consumer.held = {t: m for t, m in consumer.held.items() if t in known}
        returned = self._release(unknown, self._put_back)
        self.counters["returned"] += returned
        return 1, returned, known - consumer.held.keys()

    def leave(self, name: str) -> int:
        """Remove a consumer."""
        gone = self.consumers.pop(name, Consumer(0))
        returned = self._release(gone, self._put_back)
        self.counters["returned"] += returned
        return returned

    def requeue(self, index: int) -> bool:
        """Send a dead letter again, unless another task has its name."""
        claim, id = self.claim_of.get(self.dead[index].message), self.id_of[self.dead[index].message]
        if claim and self.claims.setdefault(claim, id) != id:
            return False
        letter = self.dead.pop(index)
        self.ready[letter.step].append(letter.message)
        self.counters["requeued"] += 1
        batch = self.batches.get(self.batch_of.get(letter.message, ""))
        if batch is not None:
            batch.counts["failed"] -= 1
            batch.counts["settled"] -= 1
            batch.completed = False
        return True

    def purge(self, index: int) -> None:
        """Drop a dead letter."""
        del self.dead[index]
        self.dropped += 1

    def purge_queue(self, now: int) -> int:
        """Drop the messages that wait."""
        dropped = [message for _, message in self.delayed]
        dropped += [message for ready in self.ready for message in ready]
        self.delayed.clear()
        for ready in self.ready:
            ready.clear()
        for message in dropped:
            self.deliveries.pop(message, None)
            self.counters["settled"] += 1
            self._release_claim(message)
            self._record(message, "cancelled")
        self.call_waiting(now)
        return len(dropped)

    def close_batch(self, batch: str) -> None:
        """Close a batch."""
        self.batches[batch].closed = True
        self._finish(self.batches[batch])


def step_of(token: str) -> int:
    """Return the priority index of a token."""
    return int(token.rpartition("/")[2])

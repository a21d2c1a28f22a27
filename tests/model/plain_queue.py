"""Model one queue in plain Python: where each message is, and what happened so far.

Written from what the scripts promise (their headers), not from how they do it: lists, dictionaries, a clock.
A message is in exactly one of `ready`, `delayed`, a consumer's `held`, `dead`; or it is settled, or was
dropped from the dead letters.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

STEPS = 4
SILENCE_MS = GRACE_MS = 5_000


@dataclass
class Consumer:
    """Hold messages under a lease; `held` is token -> message, oldest first."""

    lease_until: int
    held: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dead:
    """Be a dead letter."""

    message: str
    reason: str
    deliveries: int
    step: int


@dataclass
class Batch:
    """Count a batch."""

    closed: bool = False
    completed: bool = False
    #: The task that follows it was sent, with these counts.
    followed: dict[str, int] | None = None
    counts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class New:
    """Be a message to publish."""

    message: str
    id: str
    due: int | None = None
    claim: str = ""


@dataclass(frozen=True)
class Settled:
    """Say how a delivery ended, as turn.lua is told."""

    token: str
    action: str
    state: str = "succeeded"
    due: int = 0
    text: str = ""


class PlainQueue:
    """Be the queue; every method is one script, at the time `now`."""

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
        self.dropped = 0
        self.spoken_at: int | None = None
        self.bucket: tuple[float, int] | None = None

    @property
    def depth(self) -> int:
        """Count what waits."""
        return sum(map(len, self.ready))

    def limit(self, name: str, default: float) -> float:
        """Return a limit."""
        return self.limits.get(name, default)

    # Publishing ---------------------------------------------------------------------------------------------

    def publish(self, policy: str, step: int, batch: str, items: Iterable[New], now: int) -> list[str]:
        """Take what there is room for."""
        answers = [self._publish(policy, step, batch, item, now) for item in items]
        taken = answers.count("taken")
        self.counters["published"] += taken
        self.counters["refused"] += len(answers) - taken
        if taken:
            self.counters["high_water"] = max(self.counters["high_water"], self.depth)
        return answers

    def _publish(self, policy: str, step: int, batch: str, item: New, now: int) -> str:
        if batch and policy != "exempt" and (batch not in self.batches or self.batches[batch].closed):
            return "closed"
        if item.claim in self.claims:
            return f"duplicate:{self.claims[item.claim]}"
        due = item.due if item.due is not None and item.due > now else None
        if not self._room(policy, due):
            return "full"
        if item.claim:
            self.claims[item.claim] = item.id
        self.batch_of[item.message] = batch
        if batch in self.batches:
            self.batches[batch].counts["sent"] += 1
        if due is None:
            self.ready[step].append(item.message)
        else:
            self.delayed[step, item.message] = due
        return "taken"

    def _room(self, policy: str, due: int | None) -> bool:
        if policy == "exempt":
            return True
        if due is not None:
            bound = self.limit("delayed_bound", 0)
            return not bound or len(self.delayed) < bound
        bound = self.limit("bound", 0)
        if not bound or self.depth < bound:
            return True
        if policy != "shed":
            return False
        step = max(step for step in range(STEPS) if self.ready[step])
        oldest = self.ready[step].popleft()
        self.deliveries.pop(oldest, None)
        self._bury(step, oldest, "shed", 0)
        self.counters["shed"] += 1
        return True

    # Ending -------------------------------------------------------------------------------------------------

    def _bury(self, step: int, message: str, reason: str, deliveries: int) -> None:
        self.dead.append(Dead(message, reason, deliveries, step))
        self.counters["dead"] += 1
        over = max(0, len(self.dead) - int(self.limit("dead_bound", 10_000)))
        self.dropped += over
        del self.dead[:over]
        self._record(message, "failed")

    def _record(self, message: str, state: str) -> None:
        batch = self.batches.get(self.batch_of.get(message, ""))
        if batch is not None and state:
            batch.counts[state] += 1
            batch.counts["settled"] += 1
            self._finish(batch)

    def _finish(self, batch: Batch) -> None:
        if batch.closed and batch.counts["sent"] == batch.counts["settled"]:
            batch.completed = True
            batch.followed = batch.followed or dict(batch.counts)

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
        """Pass on all that a consumer holds so that the oldest is next to leave."""
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
                self._record(message, s.state)
            case "bury":
                self._bury(step, message, s.text, self.deliveries.pop(message, 0) + 1)
            case "replace":
                self.deliveries.pop(message, None)
                self.batch_of[s.text] = self.batch_of.get(message, "")
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
        self, name: str, lease: int, credit: int, slots: int, new: bool, settled: list[Settled], now: int
    ) -> tuple[bool, int, list[tuple[str, int, str]]]:
        """Settle, sweep, promote, fetch; return (lease held, late, what was fetched)."""
        if not new and name not in self.consumers:
            self.counters["late"] += len(settled)
            return False, len(settled), []
        consumer = self.consumers.setdefault(name, Consumer(0))
        consumer.lease_until = now + lease
        late = sum(not self._settle(consumer, s) for s in settled)
        self._sweep(now)
        self._promote(now)
        return True, late, self._fetch(consumer, credit, slots, now) if credit else []

    def _sweep(self, now: int) -> None:
        silent = self.spoken_at is not None and now - self.spoken_at > SILENCE_MS
        self.spoken_at = now
        expired = [(c.lease_until, name) for name, c in self.consumers.items() if c.lease_until < now]
        for _, name in sorted(expired)[:10]:
            if silent:
                self.consumers[name].lease_until = now + GRACE_MS
            else:
                self._release(self.consumers.pop(name), self._redeliver)
                self.counters["leases_lost"] += 1

    def _promote(self, now: int) -> None:
        due = sorted((at, f"{step}{message}") for (step, message), at in self.delayed.items() if at <= now)
        for _, entry in due[:100]:
            step, message = int(entry[0]), entry[1:]
            del self.delayed[step, message]
            self.ready[step].append(message)

    def allowance(self, credit: int, slots: int, now: int) -> int:
        """Say how many messages the limits allow."""
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
            tokens = min(burst, had + (now - at) * rate / 1000)
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
                token = f"{self.counters['fetched']}/{step}"
                consumer.held[token] = message
                fetched.append((token, self.deliveries.get(message, 0), message))
        return fetched

    # The other scripts --------------------------------------------------------------------------------------

    def renew(self, name: str, lease: int, now: int) -> bool:
        """Renew a lease."""
        if name not in self.consumers:
            return False
        self.consumers[name].lease_until = now + lease
        self.counters["renewed"] += 1
        return True

    def resume(self, name: str, lease: int, known: set[str], now: int) -> tuple[int, int]:
        """Take a lease up again; what was fetched in a lost reply goes back."""
        if name not in self.consumers:
            return 0, 0
        consumer = self.consumers[name]
        consumer.lease_until = now + lease
        unknown = Consumer(0, {t: m for t, m in consumer.held.items() if t not in known})
        consumer.held = {t: m for t, m in consumer.held.items() if t in known}
        returned = self._release(unknown, self._put_back)
        self.counters["returned"] += returned
        return 1, returned

    def leave(self, name: str) -> int:
        """Let a consumer go."""
        gone = self.consumers.pop(name, Consumer(0))
        returned = self._release(gone, self._put_back)
        self.counters["returned"] += returned
        return returned

    def requeue(self, index: int) -> None:
        """Send a dead letter again."""
        letter = self.dead.pop(index)
        self.ready[letter.step].append(letter.message)
        self.counters["requeued"] += 1
        batch = self.batches.get(self.batch_of.get(letter.message, ""))
        if batch is not None:
            batch.counts["failed"] -= 1
            batch.counts["settled"] -= 1
            batch.completed = False

    def purge(self, index: int) -> None:
        """Drop a dead letter."""
        del self.dead[index]
        self.dropped += 1

    def close_batch(self, batch: str) -> None:
        """Close a batch."""
        self.batches[batch].closed = True
        self._finish(self.batches[batch])


def step_of(token: str) -> int:
    """Return the priority index of a token."""
    return int(token.rpartition("/")[2])

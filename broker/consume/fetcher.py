"""Fetch for one channel: one connection takes turns, another waits for a wake token, neither blocks the
event loop.

A turn settles and fetches in one script. When a turn finds nothing, the waiting connection sleeps on the
wake lists: it takes only a token, so no message is ever in the hands of a blocking pop. It looks again
after a second by itself, for a stock producer wakes nobody. A turn that fetches is sent along behind the wait
where it can be: the server carries it out as soon as the wait is over, and a round trip is saved.
"""

import logging
import time
from time import sleep
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from millpond.broker.consume import fetch_call
from millpond.broker.consume.in_flight import GATHERED_SECONDS, Holder
from millpond.broker.consume.queue_lease import Hold, Turn
from millpond.broker.control import state
from millpond.broker.errors import BrokerError
from millpond.broker.keys import QueueKeys, epoch_key
from millpond.broker.scripts import script

logger = logging.getLogger(__name__)

#: Seconds between looks at a queue that nobody was woken for.
LOOK_SECONDS = 1

#: Seconds between looks of a drained process at whether its pool goes on.
DRAINED_LOOK_SECONDS = 5

#: How long the server may owe an answer where no socket timeout is set.
PATIENCE_SECONDS = 5.0

#: How long the loop of an idle process leaves the interpreter to the thread of what came.
START_SECONDS = 0.0002

TURN, WAIT, NEWS = "TURN", "WAIT", "NEWS"


class Intake:
    """Drive the turns of one channel.

    The poller calls `on_tick` before each poll and `on_…` when a reply is there.
    """

    def __init__(self, channel: Any, holder: Holder, *, lease_ms: int) -> None:
        self.channel = channel
        self.holder = holder
        self.lease_ms = lease_ms
        self.active: set[str] = set()
        self.turn_client = channel._create_client(asynchronous=True)
        self.wait_client = channel._create_client(asynchronous=True)
        self.news_client = channel._create_client(asynchronous=True)
        self._listening = False
        self._learned_at = 0.0
        self._turn: Turn | None = None
        self._turn_since = 0.0
        self._waiting: list[str] | None = None
        self._behind: Turn | None = None
        self._waiting_since = 0.0
        self._taken_up: set[str] = set()
        # A turn of a lost connection is answered no more; what it was to settle is settled on this one.
        if holder.intake is not None:
            holder.intake.abandon()
        holder.settle_finished()
        holder.intake = self

    def start(self, keys: QueueKeys) -> None:
        """Begin to consume a queue; after a lost connection, take up the lease again where it still holds."""
        hold = self.holder.hold(keys)
        if keys.queue not in self._taken_up:
            self._take_up(hold)
            self._taken_up.add(keys.queue)
        hold.hungry = True
        self.active.add(keys.queue)

    def _take_up(self, hold: Hold) -> None:
        known = [*hold.held, *(delivery.token for delivery, _ in hold.pending)]
        # Asked even when no turn was ever answered: the server may have carried out the first one.
        client, successor = self.channel.store.client, self.holder.new_consumer()
        words = (hold.consumer, self.lease_ms, successor, *known)
        held, returned = script("resume_lease").run(client, hold.keys.all, words)
        if held:
            self.holder.go_on_as(hold, successor)
        elif hold.registered:
            self.holder.lost(hold)
        if returned:
            logger.info("queue %s: %d messages of a lost reply went back", hold.queue, returned)

    def stop(self, queue: str) -> None:
        """Fetch nothing more from a queue; what is held of it is settled as before."""
        self.active.discard(queue)

    # Sending

    def on_tick(self) -> None:
        """Send the next turn if it is time for one; else make sure that something will wake this process.

        Raises redis-py's `TimeoutError` where the server owes an answer for too long, which no socket tells.
        """
        self._check_patience()
        if not self._listening:
            self._listen()
        elif self.holder.drained and time.monotonic() - self._learned_at > DRAINED_LOOK_SECONDS:
            self._learn()  # no turn would notice that the connection which brings news is dead
        if self._turn is None:
            # What the turn behind a wait may fetch is fetched by it alone: credit is given once.
            fetching = self.active if self._behind is None else set()
            turn = self.holder.next_turn(fetching, time.monotonic())
            if turn is not None:
                self._send_turn(turn)
        if self._turn is None and self._waiting is None and self.holder.room and self._has_to_be_woken():
            self._send_wait()

    def _has_to_be_woken(self) -> bool:
        """Say whether some queue had nothing more; from the others the next turn fetches."""
        return any(not self.holder.holds[queue].hungry for queue in self.active)

    def _check_patience(self) -> None:
        patience, now = self.channel.socket_timeout or PATIENCE_SECONDS, time.monotonic()
        if self._turn is not None and now - self._turn_since > patience:
            self._drop_turn()
            raise RedisTimeoutError(f"no answer to a turn for {patience} s")
        if self._waiting is not None and now - self._waiting_since > LOOK_SECONDS + patience:
            self._waiting = self._behind = None
            raise RedisTimeoutError(f"no answer to a wait for {patience} s")

    def seconds_to_next(self) -> float | None:
        """Say after how long `on_tick` has something to do although nothing arrives; None: not before."""
        now = time.monotonic()
        times = [
            hold.look_at for hold in self.holder.holds.values() if hold.look_at and hold.queue in self.active
        ]
        times += [
            hold.pending_since + GATHERED_SECONDS for hold in self.holder.holds.values() if hold.pending
        ]
        if self.holder.drained:
            times.append(self._learned_at + DRAINED_LOOK_SECONDS)
        return max(0.0, min(times) - now) if times and self._turn is None else None

    def _send_turn(self, turn: Turn) -> None:
        self._turn = turn
        self.holder.turns += 1
        try:
            connection = self.channel.connection.cycle.connected(self.channel, self.turn_client, TURN)
            connection.send_command(
                *fetch_call.command(turn, lease_ms=self.lease_ms, epoch=self.holder.epoch)
            )
            self._turn_since = time.monotonic()
        except BaseException:
            self._drop_turn()
            raise

    def _send_wait(self) -> None:
        queues, now = sorted(self.active), time.monotonic()
        connection = self.channel.connection.cycle.connected(self.channel, self.wait_client, WAIT)
        words = ("BLPOP", *(self.holder.holds[q].keys.wake for q in queues), LOOK_SECONDS)
        turn = self.holder.turn_behind_a_wait(self.active, now + LOOK_SECONDS)
        if turn is None:
            connection.send_command(*words)
        else:
            then = fetch_call.command(turn, lease_ms=self.lease_ms, epoch=self.holder.epoch)
            connection.send_packed_command(connection.pack_commands([words, then]))
        self._waiting, self._behind, self._waiting_since = queues, turn, now

    def _listen(self) -> None:
        """Listen for news, and learn of what there was before."""
        connection = self.channel.connection.cycle.connected(self.channel, self.news_client, NEWS)
        connection.send_command("SUBSCRIBE", epoch_key(self.channel.global_keyprefix))
        self._listening = True
        self._learn()

    def _learn(self) -> None:
        self._learned_at = time.monotonic()
        try:
            known = state.read(self.channel.store)
        except BrokerError as error:  # away, or busy with a script: whatever it is, the worker outlives it
            raise RedisConnectionError(str(error)) from error
        if known == self.holder.news and known.epoch:
            return
        self.holder.news = known
        for hold in self.holder.holds.values():
            hold.hungry = True  # a pool that was drained may go on
        self.holder.on_news(self._confirm)

    def _confirm(self) -> None:
        try:
            state.acknowledge(self.channel.store, self.holder.name, self.holder.epoch)
        except BrokerError as error:
            logger.warning("%s Who waits for this process to hear of it waits for nothing.", error)

    # Receiving

    def on_turn(self) -> None:
        """Read the reply of a turn and deliver what it fetched."""
        turn = self._turn
        if turn is None:
            self.turn_client.connection.disconnect()  # the server closed an idle connection
            return
        try:
            raw = self.turn_client.connection.read_response()
        except NoScriptError:
            self._turn = None
            turn.hold.unsent(turn.settlements)
            self._load_script()
            return
        except ResponseError as error:
            self._drop_turn()
            raise RedisConnectionError(f"the broker refused a turn: {error}") from error
        except BaseException:
            self._drop_turn()
            raise
        self._turn = None
        self._take_in(turn, fetch_call.read(raw))

    def _load_script(self) -> None:
        """Send the source of the turn to a server that has lost it."""
        try:
            self.channel.store.client.script_load(script("turn").source)
        except ResponseError as error:
            raise RedisConnectionError(f"the broker refused a script: {error}") from error

    def _take_in(self, turn: Turn, reply: fetch_call.Reply) -> None:
        if not reply.lease:
            logger.warning(
                "queue %s: the lease was lost; what was held has been handed to others", turn.hold.queue
            )
            turn.hold.late += reply.late
            self.holder.lost(turn.hold)
            return
        fetch_call.note(turn, reply)
        if reply.epoch > self.holder.epoch:
            self._learn()
        was_idle = not self.holder.count
        fetch_call.accept(turn.hold, reply, self.channel.connection._deliver)
        if was_idle and self.holder.count and not turn.hold.hungry:
            # Nothing else is there to be fetched or settled. A thread that wakes while this one holds the
            # interpreter goes to sleep once more.
            sleep(START_SECONDS)

    def on_wait(self) -> None:
        """Read what woke this process: a token, or the end of a second."""
        waiting, self._waiting = self._waiting, None
        turn, self._behind = self._behind, None
        if waiting is None:
            self.wait_client.connection.disconnect()
            return
        try:
            woken = self.wait_client.connection.read_response()
        except ResponseError as error:
            raise RedisConnectionError(f"the broker refused to wait: {error}") from error
        if turn is not None:
            self._on_turn_behind(turn)
            return
        for queue in waiting:
            hold = self.holder.holds[queue]
            if not woken or hold.keys.wake == woken[0].decode():
                hold.hungry = True

    def _on_turn_behind(self, turn: Turn) -> None:
        """Read the reply that follows the end of a wait."""
        try:
            raw = self.wait_client.connection.read_response()
        except NoScriptError:
            turn.hold.hungry = True
            self._load_script()
            return
        except ResponseError as error:
            raise RedisConnectionError(f"the broker refused a turn: {error}") from error
        # Under another name by now, this process has lost what the turn was for.
        if turn.consumer == turn.hold.consumer:
            self._take_in(turn, fetch_call.read(raw))

    def on_news(self) -> None:
        """Read that something was cancelled, or a pool drained."""
        kind, *_rest = self.news_client.connection.read_response(push_request=True)
        if kind == b"message":
            self._learn()

    def finish(self) -> None:
        """Wait for the reply of the turn that is under way, at most as long as the socket lets it."""
        while self._turn is not None:
            self.on_turn()
        if self._behind is not None:
            self.wait_client.connection.disconnect()
            hold, self._behind, self._waiting = self._behind.hold, None, None
            self._take_up(hold)  # what the turn behind the wait fetched meanwhile goes back

    def abandon(self) -> None:
        """Forget the turn that is under way; its settlements are sent again, and carried out once."""
        self._drop_turn()

    def _drop_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.hold.unsent(turn.settlements)

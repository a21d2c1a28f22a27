"""Show dead letters: search them, look at one whole and redacted, send them again or drop them."""

from collections import Counter
from itertools import islice
from typing import Any

from tornado.web import HTTPError

from millpond.broker import server
from millpond.broker.inspect import dead_letters, depth
from millpond.broker.inspect.dead_letters import DeadLetter as Letter
from millpond.monitor import dead_letter_search
from millpond.monitor.dead_letter_search import ACTS, Search
from millpond.monitor.json_views import error_of, whole_letter_object
from millpond.monitor.pages.handler import Handler
from millpond.tasks.durations import milliseconds

#: Dead letters on one page, and how many of the newest the summary counts.
SHOWN, SUMMED = 100, 1_000

FIELDS = ("queue", "kind", "reason", "task", "since", "before")


class Searching(Handler):
    """Read from the request which dead letters are meant."""

    def search(self) -> Search:
        """Return what the fields of the request ask for; waits for the broker. Raises `BadInput`."""
        queue, now = self.asked("queue"), server.now_ms(self.store)
        since, before, until = self.asked("since"), self.asked("before"), self.asked("until_ms")
        until_ms = int(until) if until and until.isdecimal() else now
        if before is not None:
            until_ms = min(until_ms, now - milliseconds(before))
        return Search(
            queues=(queue,) if queue else tuple(self.known_queues()),
            kind=self.asked("kind"),
            reason=self.asked("reason"),
            task_id=self.asked("task"),
            since_ms=None if since is None else now - milliseconds(since),
            until_ms=until_ms,
        )

    def known_queues(self) -> list[str]:
        """Name the queues of the table and those that were ever declared; waits for the broker."""
        return sorted({*self.table.queues, *depth.queues(self.store)})


class DeadLetters(Searching):
    """List dead letters."""

    async def get(self) -> None:
        """Render what fits the fields of the query, the newest first."""
        found, reasons, queues = await self.ask(self._found)
        self.show(
            "dead.html",
            tab="dead",
            found=found[:SHOWN],
            more=len(found) > SHOWN,
            reasons=reasons.most_common(8),
            all_queues=queues,
            asked={name: self.asked(name) or "" for name in FIELDS},
            error_of=error_of,
        )

    def _found(self) -> tuple[list[Letter], Counter[tuple[str, str]], list[str]]:
        search = self.search()
        seen = list(islice(search.found(self.store), SUMMED))
        return seen, Counter((letter.kind, letter.reason) for letter in seen), self.known_queues()


class DeadLetter(Handler):
    """Show one dead letter."""

    async def get(self, queue: str, id: str) -> None:
        """Render it whole, its arguments redacted, or 404."""
        letter = await self.ask(dead_letters.letter, self.store, queue, id)
        if letter is None:
            raise HTTPError(404, f"{queue} has no dead letter {id}: it was requeued or dropped")
        whole = whole_letter_object(letter)
        self.show("dead_letter.html", tab="dead", letter=letter, whole=whole)


class Act(Searching):
    """Requeue or purge dead letters: first ask, then do it."""

    async def post(self, what: str) -> None:
        """Show what would be done; when the form says that it was confirmed, do it."""
        self.must_be_allowed()
        chosen = [_pair(text) for text in self.get_body_arguments("id")]
        everything = self.asked("all") == "yes"
        if not chosen and not everything:
            raise HTTPError(400, "Choose dead letters first")
        if self.asked("confirmed") != "yes":
            await self._ask_first(what, chosen, everything)
            return
        if everything:
            chosen = await self.ask(self._fitting)
        count = await self.ask(dead_letter_search.act, self.store, what, chosen)
        done = ACTS[what][1]
        ids = ", ".join(f"{queue} {id}" for queue, id in chosen[:20]) + (", …" if len(chosen) > 20 else "")
        await self.note(f"{done} {count} dead letter{_s(count)}: {ids}")
        self.go(self.reverse_url("dead"), f"{count:,} dead letter{_s(count)} {done}.")

    async def _ask_first(self, what: str, chosen: list[tuple[str, str]], everything: bool) -> None:
        count = len(await self.ask(self._fitting)) if everything else len(chosen)
        now_ms = await self.ask(server.now_ms, self.store)
        fields: dict[str, Any] = {name: self.asked(name) for name in FIELDS} if everything else {}
        self.show(
            "confirm.html",
            tab="dead",
            title=f"{what.capitalize()} {count:,} dead letter{_s(count)}?",
            text=_WHAT_HAPPENS[what],
            action=self.reverse_url("act-on-dead", what),
            button=what.capitalize(),
            danger=what == "purge",
            fields=[
                *((name, value) for name, value in fields.items() if value),
                *(("id", f"{queue} {id}") for queue, id in chosen if not everything),
                *((("all", "yes"), ("until_ms", str(now_ms))) if everything else ()),
            ],
            back=self.reverse_url("dead"),
        )

    def _fitting(self) -> list[tuple[str, str]]:
        return [(letter.queue, letter.id) for letter in self.search().found(self.store)]


_WHAT_HAPPENS = {
    "requeue": "Each joins the back of its queue as it was, with no deliveries counted, whatever the bound.",
    "purge": "What is purged is dropped for good: nothing brings it back.",
}


def _pair(text: str) -> tuple[str, str]:
    queue, _, id = text.rpartition(" ")
    time, _, number = id.partition("-")
    if not queue or not time.isdigit() or not number.isdigit():
        raise HTTPError(400, "That names no dead letter")
    return queue, id


def _s(count: int) -> str:
    return "" if count == 1 else "s"

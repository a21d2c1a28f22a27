"""The pages of dead letters: search, one letter whole with redacted arguments, requeue, purge."""

import re
from collections import Counter
from itertools import islice
from typing import Any

from tornado.web import HTTPError

from millpond.broker import server
from millpond.broker.inspect import dead_letters, depth
from millpond.broker.inspect.dead_letters import DeadLetter as Letter
from millpond.broker.inspect.dead_letters import LetterFilter
from millpond.monitor import dead_letter_search
from millpond.monitor.dead_letter_search import ACTIONS, is_letter_id, search_letters
from millpond.monitor.json_views import whole_dead_letter_json
from millpond.monitor.pages.handler import PageHandler
from millpond.monitor.snapshot import read_queue_names
from millpond.tasks.durations import parse_milliseconds
from millpond.tasks.errors import BadInput

#: The most dead letters on the page, and the most that its summary of reasons counts, the newest first.
SHOWN, COUNTED = 100, 1_000

FIELDS = ("queue", "kind", "reason", "task", "since", "before")


class SearchHandler(PageHandler):
    """A handler with the search fields of the request."""

    def field(self, name: str) -> str | None:
        """Return the last value of a field, or None if it is empty or missing.

        Control characters are kept. Spaces around the value are removed, except around the name of a queue.
        """
        value = (self.raw_values(name) or [""])[-1]
        return (value if name == "queue" else value.strip()) or None

    def raw_values(self, name: str) -> list[str]:
        """Return the values of a field as they were sent.

        Tornado's own methods strip them, and replace control characters.
        """
        values = self.request.arguments.get(name, [])
        return [self.decode_argument(value, name=name) for value in values]

    def make_search(self) -> tuple[list[str], LetterFilter]:
        """Return the queues to search and the wanted letters, of the request's fields. Blocks on the broker.

        Raises `BadInput` for a bad field. `since` and `before` are ages. `until_ms` is the time at which the
        confirmation was rendered.
        """
        queue, now_ms = self.field("queue"), server.server_time_ms(self.store)
        since, before, until = self.field("since"), self.field("before"), self.field("until_ms")
        if until is not None and not re.fullmatch("[0-9]{1,15}", until):
            raise BadInput(f"until_ms is a time in ms since 1970, not {until!r:.80}")
        until_ms = now_ms if until is None else int(until)
        if before is not None:
            until_ms = min(until_ms, now_ms - parse_milliseconds(before))
        wanted = LetterFilter(
            kind=self.field("kind"),
            reason=self.field("reason"),
            task_id=self.field("task"),
            since_ms=None if since is None else now_ms - parse_milliseconds(since),
            until_ms=until_ms,
        )
        return [queue] if queue else self.known_queues(), wanted

    def known_queues(self) -> list[str]:
        """Return the names of all queues. Blocks on the broker."""
        return read_queue_names(self.store, self.pools_table)


class DeadLettersPage(SearchHandler):
    """The page of dead letters."""

    async def get(self) -> None:
        """Render the dead letters that match the search, the newest first."""
        letters, reasons, queues, total = await self.call_broker(self._search_letters)
        self.render_page(
            "dead.html",
            tab="dead",
            letters=letters[:SHOWN],
            more=len(letters) > SHOWN,
            reasons=reasons.most_common(8),
            more_reasons=max(0, len(reasons) - 8),
            counted=None if len(letters) < COUNTED else COUNTED,
            total=total,
            all_queues=queues,
            filters={name: self.field(name) or "" for name in FIELDS},
        )

    def _search_letters(self) -> tuple[list[Letter], Counter[tuple[str, str]], list[str], int]:
        """Return the newest letters that match, and figures for the page. Blocks on the broker.

        The figures are: how many of these letters have each kind and reason, the names of all queues, and the
        number of dead letters in the searched queues.
        """
        queues, wanted = self.make_search()
        newest = list(islice(search_letters(self.store, queues, wanted), COUNTED))
        total = sum(counts.dead for counts in depth.read_depths(self.store, queues))
        return newest, Counter((letter.kind, letter.reason) for letter in newest), self.known_queues(), total


class DeadLetterPage(PageHandler):
    """The page of one dead letter."""

    async def get(self, queue: str, letter_id: str) -> None:
        """Render the whole dead letter with redacted arguments, or 404."""
        letter = await self.call_broker(dead_letters.read_dead_letter, self.store, queue, letter_id)
        if letter is None:
            raise HTTPError(404, f"{queue} has no dead letter {letter_id}: it was requeued or purged")
        whole = whole_dead_letter_json(letter)
        self.render_page("dead_letter.html", tab="dead", letter=letter, whole=whole)


class ChangeDeadLetters(SearchHandler):
    """Requeue or purge dead letters after a confirmation."""

    async def post(self, action: str) -> None:
        """Render the confirmation, or apply the action (`requeue` or `purge`) if the form confirms it.

        The dead letters are the chosen ones, or all that match the search. Raises `HTTPError` 400 without
        any.
        """
        self.require_change_right()
        chosen = [_parse_id(text) for text in self.raw_values("id")]
        everything = self.field("all") == "yes"
        if not chosen and not everything:
            raise HTTPError(400, "Choose dead letters first")
        if self.field("confirmed") != "yes":
            await self._render_confirmation(action, chosen, everything)
            return
        if everything:
            chosen = await self.call_broker(self._matching_ids)
        count = await self.call_broker(dead_letter_search.apply_action, self.store, action, chosen)
        past_tense, letters = ACTIONS[action][1], "dead letter" if count == 1 else "dead letters"
        ids = ", ".join(f"{queue} {id}" for queue, id in chosen[:20]) + (", …" if len(chosen) > 20 else "")
        await self.record_change(f"{past_tense} {count} {letters}: {ids}")
        self.redirect_with_message(self.reverse_url("dead"), f"{count:,} {letters} {past_tense}.")

    async def _render_confirmation(self, action: str, ids: list[tuple[str, str]], everything: bool) -> None:
        """Render the form that confirms a change of these dead letters, or of all that match."""
        count = len(await self.call_broker(self._matching_ids)) if everything else len(ids)
        now_ms = await self.call_broker(server.server_time_ms, self.store)
        fields: dict[str, Any] = {name: self.field(name) for name in FIELDS} if everything else {}
        self.render_page(
            "confirm.html",
            tab="dead",
            title=f"{action.capitalize()} {count:,} dead letter{'' if count == 1 else 's'}?",
            text=_CONSEQUENCES[action],
            action=self.reverse_url("act-on-dead", action),
            button=action.capitalize(),
            danger=action == "purge",
            fields=[
                *((name, value) for name, value in fields.items() if value),
                *(("id", f"{queue} {id}") for queue, id in ids if not everything),
                *((("all", "yes"), ("until_ms", str(now_ms))) if everything else ()),
            ],
            back=self.reverse_url("dead"),
        )

    def _matching_ids(self) -> list[tuple[str, str]]:
        """Return the queue and the id of each dead letter that matches. Blocks on the broker."""
        return [(letter.queue, letter.id) for letter in search_letters(self.store, *self.make_search())]


_CONSEQUENCES = {
    "requeue": "Each message joins the back of its queue, whatever the bound, with no deliveries counted.",
    "purge": "Purged dead letters are deleted for good.",
}


def _parse_id(text: str) -> tuple[str, str]:
    """Return the queue and the id of a dead letter, from "queue id". Raises `HTTPError` 400."""
    queue, _, id = text.rpartition(" ")
    if not queue or not is_letter_id(id):
        raise HTTPError(400, "The id is not that of a dead letter")
    return queue, id

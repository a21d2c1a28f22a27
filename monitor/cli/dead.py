"""`millpond dead`: list, show, requeue and purge dead letters."""

from typing import TYPE_CHECKING, Annotated

import typer

from millpond.broker.message_names import replace_unprintable
from millpond.monitor.cli.output import JsonLines, print_result
from millpond.monitor.cli.store import open_store, require_queue
from millpond.tasks.errors import BadInput

if TYPE_CHECKING:
    from millpond.broker.connection import Store
    from millpond.broker.inspect.dead_letters import LetterFilter

#: The values of --kind, --reason, --task, --since and --before.
Filters = tuple[str | None, str | None, str | None, str | None, str | None]

app = typer.Typer(
    help="List, show, requeue and purge dead letters.",
    no_args_is_help=True,
    epilog="Example: millpond dead list email --reason SMTPRecipientsRefused",
)

Queue = Annotated[str, typer.Argument(metavar="QUEUE", help="A queue, as `millpond status` lists it.")]
Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="As `millpond dead list` shows it.")]
Kind = Annotated[str | None, typer.Option(help="Only tasks of this kind.")]
Reason = Annotated[str | None, typer.Option(help="Only those with this text in the reason or the error.")]
Task = Annotated[str | None, typer.Option(help="Only the task with this id.")]
Since = Annotated[
    str | None, typer.Option(metavar="AGE", help="Only those not older than this, as in 90s, 2h, 7d.")
]
Before = Annotated[str | None, typer.Option(metavar="AGE", help="Only those older than this.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters of the queue.")]


@app.command("list", epilog="Example: millpond dead list files --since 1h --json")
def list_(
    queue: Queue,
    kind: Kind = None,
    reason: Reason = None,
    task: Task = None,
    since: Since = None,
    before: Before = None,
    as_json: JsonLines = False,
) -> None:
    """List the dead letters of a queue, the oldest first."""
    from millpond.broker.inspect.dead_letters import read_dead_letters
    from millpond.monitor.json_views import dead_letter_json

    with open_store() as store:
        letter, wanted = None, _make_filter(store, (kind, reason, task, since, before))
        for letter in read_dead_letters(store, queue, wanted):
            text = f"{letter.id}  {letter.kind}  {letter.reason}  {letter.error}"
            print_result(dead_letter_json(letter), text, as_json=as_json)
        if letter is None:
            require_queue(store, queue)


@app.command(epilog="Example: millpond dead show email 1795423079879-0")
def show(queue: Queue, id: Annotated[str, typer.Argument(metavar="ID")], as_json: JsonLines = False) -> None:
    """Show a whole dead letter: its arguments (redacted), times, error and traceback."""
    import json

    from millpond.broker.inspect.dead_letters import read_dead_letter
    from millpond.monitor.dead_letter_search import is_letter_id
    from millpond.monitor.json_views import whole_dead_letter_json

    with open_store() as store:
        letter = read_dead_letter(store, queue, id) if is_letter_id(id) else None
    if letter is None:
        raise BadInput(f"{queue} has no dead letter {id!r}: see `millpond dead list {queue}`")
    fields = whole_dead_letter_json(letter)
    if as_json:
        print(json.dumps(fields))
        return
    traceback = fields.pop("traceback", "")
    for name, value in fields.items():
        print(f"{name:12} {replace_unprintable(str(value))}")
    if traceback:
        print("", *map(replace_unprintable, str(traceback).splitlines()), sep="\n")


def _add_command(action: str, help_: str, example: str) -> None:
    """Add the command that applies an action to dead letters."""

    @app.command(action, help=help_, epilog=f"Example: millpond dead {action} {example}")
    def apply_action(
        queue: Queue,
        ids: Ids = None,
        kind: Kind = None,
        reason: Reason = None,
        task: Task = None,
        since: Since = None,
        before: Before = None,
        all_: All = False,
        as_json: JsonLines = False,
    ) -> None:
        _check_selection(ids, (kind, reason, task, since, before), all_)
        _apply_to_letters(action, queue, ids, (kind, reason, task, since, before), as_json)


_add_command(
    "requeue",
    "Send dead letters again, by their ids or all that match; the messages are unchanged.",
    "email --reason 'connection refused'",
)
_add_command("purge", "Delete dead letters for good, by their ids or all that match.", "files --before 30d")


def _apply_to_letters(
    action: str, queue: str, ids: list[str] | None, filters: Filters, as_json: bool
) -> None:
    """Requeue or purge the dead letters of these ids or filters, and print their number.

    Raises `BadInput` at the first id that the queue does not have. Letters that were changed before an error
    are recorded in the audit too.
    """
    from millpond.broker import audit
    from millpond.broker.inspect.dead_letters import read_dead_letters
    from millpond.monitor.dead_letter_search import ACTIONS, is_letter_id

    apply, past_tense = ACTIONS[action]
    count = 0
    with open_store() as store:
        letter_ids = ids or [
            letter.id for letter in read_dead_letters(store, queue, _make_filter(store, filters))
        ]
        try:
            for id in letter_ids:
                if is_letter_id(id) and apply(store, queue, id):
                    count += 1
                elif ids:
                    raise BadInput(f"{queue} has no dead letter {id!r}; {count} {past_tense} before it")
        finally:
            if count:
                letters = "dead letter" if count == 1 else "dead letters"
                audit.record_command(store, f"{past_tense} {count} {letters} of {queue}")
        if not count:
            require_queue(store, queue)
    print_result({"queue": queue, past_tense: count}, f"{queue}: {count} {past_tense}", as_json=as_json)


def _check_selection(ids: list[str] | None, filters: Filters, everything: bool) -> None:
    """Raise `BadInput` if dead letters are named in no way or in two ways."""
    if not ids and not everything and not any(filters):
        raise BadInput("no dead letters are named: give ids, a filter such as --reason, or --all")
    if ids and (everything or any(filters)):
        raise BadInput("ids name the dead letters: leave out the filters and --all, or the ids")


def _make_filter(store: "Store", filters: Filters) -> "LetterFilter":
    """Return the filter of the options. `--since` and `--before` are ages, as in `2h`."""
    from millpond.broker.inspect.dead_letters import LetterFilter
    from millpond.broker.server import server_time_ms
    from millpond.tasks.durations import parse_milliseconds

    now, (kind, reason, task_id, since, before) = server_time_ms(store), filters
    since_ms, until_ms = (None if age is None else now - parse_milliseconds(age) for age in (since, before))
    return LetterFilter(kind, reason, task_id, since_ms, until_ms)

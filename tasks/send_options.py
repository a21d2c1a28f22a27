"""The options of sending a task.

`Client.send`, `Batch.send` and `Message` take these options. The gateway's options and the settings of a
schedule have the same names and descriptions.
"""

from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache
from typing import Annotated, Any, get_type_hints

from millpond.tasks.durations import Duration


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """The options of one task. A duration is a `timedelta`, a number of seconds or a text as in 1.5h."""

    queue: Annotated[str | None, "The queue, instead of the kind's own."] = None
    id: Annotated[str | None, "The task's id, instead of a new one."] = None
    priority: Annotated[int, "0 is fetched first, 9 last."] = 0
    delay: Annotated[Duration | None, "Do not start before this time from now."] = None
    at: Annotated[datetime | None, "Do not start before this moment."] = None
    expires: Annotated[Duration | datetime | None, "Do not start after this time from now."] = None
    once: Annotated[
        str | None, "Unique key: a second task with this key is a duplicate until the first has ended."
    ] = None
    for_: Annotated[Duration | None, "Keep the unique key this long from sending instead."] = None
    deadline: Annotated[
        Duration | datetime | None,
        "Refuse the task if its queue cannot start it by then; do not start it after.",
    ] = None
    traceparent: Annotated[str | None, "The trace that it continues, instead of the current one."] = None

    def non_default(self) -> dict[str, Any]:
        """Return the options that differ from their default, by name."""
        values = ((field.name, getattr(self, field.name), field.default) for field in fields(SendOptions))
        return {name: value for name, value, default in values if value != default}


@cache
def option_descriptions() -> dict[str, str]:
    """Return the description of each option, by the option's name."""
    hints = get_type_hints(SendOptions, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in fields(SendOptions)}

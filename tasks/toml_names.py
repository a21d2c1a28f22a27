"""Names of pools, queues and schedules as millpond.toml spells them in the header of a table."""

import json
import re


def toml_key(name: str) -> str:
    """Return a name as a key of TOML: `email`, but `"orders.high"`, whose dot would begin a table of its own.

    Half a character, which no TOML can hold, is written as its escape.
    """
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    return json.dumps(name, ensure_ascii=False).encode(errors="backslashreplace").decode()


def table_header(*names: str) -> str:
    """Return the header of a table: `[queues.email]`, `[queues."orders.high"]`."""
    return f"[{'.'.join(map(toml_key, names))}]"

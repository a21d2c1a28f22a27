"""Check the names in a message: they go into commands, keys and logs, where an unprintable one does harm."""

#: The maximum length of an id and of a kind. Stock clients write much shorter ones.
LONGEST = 1_000


def check_names(*, id: str, kind: str, batch: str | None, unique_key: str) -> None:
    """Raise `ValueError` if a name cannot be written, or an id or kind not be shown."""
    for what, name in (("id", id), ("kind", kind)):
        if len(name) > LONGEST:
            raise ValueError(f"its {what} is longer than {LONGEST} characters")
        if not name.isprintable():
            raise ValueError(f"its {what} has characters that cannot be shown: {name[:80]!a}")
    for what, name in (("batch", batch or ""), ("unique key", unique_key)):
        if not name.isascii() and escape_surrogates(name) != name:
            raise ValueError(f"its {what} has half a surrogate pair, which cannot be written: {name[:80]!a}")


def escape_surrogates(text: str) -> str:
    """Return a text in which half a surrogate pair, which cannot be encoded, is escaped as in JSON."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()

"""Check the names in a message: they go into commands, keys and logs, where an unprintable one does harm.

Texts that are shown without such a check have their unprintable characters replaced.
"""

#: The maximum length of an id and of a kind. Stock clients write much shorter ones.
LONGEST = 1_000


def check_names(*, id: str, kind: str, batch: str | None, unique_key: str) -> None:
    """Raise `ValueError` if a name cannot be encoded, or if an id or kind is too long or unprintable."""
    for field, name in (("id", id), ("kind", kind)):
        if len(name) > LONGEST:
            raise ValueError(f"its {field} is longer than {LONGEST} characters")
        if not name.isprintable():
            raise ValueError(f"its {field} has characters that cannot be shown: {name[:80]!a}")
    for field, name in (("batch", batch or ""), ("unique key", unique_key)):
        if not name.isascii() and escape_surrogates(name) != name:
            raise ValueError(f"its {field} has half a surrogate pair, which cannot be written: {name[:80]!a}")


def escape_surrogates(text: str) -> str:
    """Return the text with each half of a surrogate pair, which cannot be encoded, escaped as in JSON."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def replace_unprintable(text: str) -> str:
    """Return a text with `?` for each control character, so that it cannot control a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)

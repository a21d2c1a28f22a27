"""Escape text from files of strangers, as the name of an archive's entry, before it goes into an error."""


def escape_untrusted(text: str) -> str:
    """Return a text as one line of ASCII, cut to 200 characters."""
    escaped = ascii(text)[1:-1]
    return escaped if len(escaped) <= 200 else f"{escaped[:200]}…"

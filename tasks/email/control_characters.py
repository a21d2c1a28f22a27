"""Refuse the characters that end a header line or that no mail may hold. This prevents header injection.

Contracts check every field that becomes a header. `headers.py` checks the rendered headers again.
"""

import unicodedata

#: Categories that end a line or cannot be encoded: control, line and paragraph separators, lone surrogates.
_REFUSED = frozenset({"Cc", "Zl", "Zp", "Cs"})


def require_one_line(text: str, *, tabs_allowed: bool = False) -> str:
    """Return `text` unchanged. Raises `ValueError` for a line break or another control character."""
    if text.isascii() and text.isprintable():
        return text
    for character in text:
        if unicodedata.category(character) in _REFUSED and not (tabs_allowed and character == "\t"):
            raise ValueError(
                f"must be one line without control characters, and holds U+{ord(character):04X}: remove it"
            )
    return text


def body_text(text: str) -> str:
    """Return `text` unchanged. Raises `ValueError` if no body may hold it (RFC 5322, section 3.5: no NUL)."""
    if "\0" in text:
        raise ValueError("must hold no NUL character: remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "must be Unicode text, and holds half of a surrogate pair: repair its decoding"
        ) from None
    return text

"""Refuse the characters that would end a header's line (header injection), or that no mail may have.

Contracts check every field that becomes a header. `headers.py` checks the rendered headers again.
"""

import unicodedata

#: Unicode categories: control characters, line separators, paragraph separators, and surrogates.
_REFUSED_CATEGORIES = frozenset({"Cc", "Zl", "Zp", "Cs"})
_HALF_SURROGATE_PAIR = "must be Unicode text, and holds half of a surrogate pair: repair its decoding"


def require_one_line(text: str, *, tabs_allowed: bool = False) -> str:
    """Return the text unchanged. `tabs_allowed` permits tabs.

    Raises `ValueError` for a line break, a control character or half a surrogate pair.
    """
    if text.isascii() and text.isprintable():
        return text
    for character in text:
        if unicodedata.category(character) in _REFUSED_CATEGORIES and not (
            tabs_allowed and character == "\t"
        ):
            if unicodedata.category(character) == "Cs":
                raise ValueError(_HALF_SURROGATE_PAIR)
            raise ValueError(
                f"must be one line without control characters, and holds U+{ord(character):04X}: remove it"
            )
    return text


def check_body_text(text: str) -> str:
    """Return a body unchanged. Raises `ValueError` for NUL (RFC 5322, 3.5) and half a surrogate pair."""
    if "\0" in text:
        raise ValueError("must hold no NUL character: remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(_HALF_SURROGATE_PAIR) from None
    return text

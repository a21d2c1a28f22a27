"""Make the error texts for unknown names: the known names, and the one that was probably meant."""

from collections.abc import Iterable

#: The similarity, from 0 to 1, from which a known name is suggested.
_SUGGESTED_SIMILARITY = 0.7


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the known name that begins with the whole of `name`, if there is one, or else the most similar.

    Capitals and - instead of _ make no difference. Return None if no name is similar.
    """
    from difflib import get_close_matches

    by_normalized = {known.lower().replace("-", "_"): known for known in names}
    normalized = name.lower().replace("-", "_")
    matches = [known for known in by_normalized if known.startswith(f"{normalized}_")]
    if len(matches) != 1:
        matches = get_close_matches(normalized, by_normalized, 1, _SUGGESTED_SIMILARITY)
        matches = matches or [known for known in by_normalized if _is_typing_error(normalized, known)]
    return by_normalized[matches[0]] if matches else None


def _is_typing_error(name: str, known: str) -> bool:
    """True if one letter is replaced, or two are exchanged.

    In a short name this is too large a part for `get_close_matches`.
    """
    if len(name) != len(known) or len(name) < 2:
        return False
    differences = sum(letter != known_letter for letter, known_letter in zip(name, known, strict=True))
    return differences == 1 or (differences == 2 and sorted(name) == sorted(known))


def known_names_text(name: str, known_names: Iterable[str]) -> str:
    """Return the end of the error text for an unknown name: the known names, and the one that is similar."""
    names = sorted(known_names)
    suggestion = closest_name(name, names)
    text = f"there are: {', '.join(names)}." if names else "there are none."
    return text if suggestion is None else f"{text} Did you mean {suggestion!r}?"


def unknown_name_text(name_type: str, name: str, names: Iterable[str]) -> str:
    """Return the error text for an unknown name. `name_type` is `pool`, `queue` or `kind`."""
    return f"no {name_type} is named {name!r}; {known_names_text(name, names)}"

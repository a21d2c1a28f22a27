"""Error texts for unknown names: the known names, and the one that was probably meant."""

from collections.abc import Iterable

#: The similarity, from 0 to 1, from which a name is taken for a typing error.
ALIKE = 0.7


def closest_name(name: str, names: Iterable[str]) -> str | None:
    """Return the most similar known name, or the only one that begins with `name`."""
    from difflib import get_close_matches

    by_lower = {each.lower().replace("-", "_"): each for each in names}
    plain = name.lower().replace("-", "_")
    longer = [each for each in by_lower if each.startswith(f"{plain}_")]
    slips = [each for each in by_lower if _is_typing_error(plain, each)]
    matches = longer if len(longer) == 1 else get_close_matches(plain, by_lower, 1, ALIKE) or slips
    return by_lower[matches[0]] if matches else None


def _is_typing_error(name: str, meant: str) -> bool:
    """True if two letters are exchanged or one is replaced. In a short name each letter is a large part."""
    differ = sum(ours != theirs for ours, theirs in zip(name, meant, strict=False))
    return len(name) == len(meant) > 1 and (differ == 1 or (differ == 2 and sorted(name) == sorted(meant)))


def list_names(name: str, known_names: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: the known names, and a suggestion."""
    names = sorted(known_names)
    meant = closest_name(name, names)
    listed = f"there are: {', '.join(names)}." if names else "there are none."
    return listed if meant is None else f"{listed} Did you mean {meant!r}?"


def unknown_name(name_type: str, name: str, names: Iterable[str]) -> str:
    """Return the error text for an unknown name. `name_type` is `pool`, `queue` or `kind`."""
    return f"no {name_type} is named {name!r}; {list_names(name, names)}"

"""Answer a name that is not known: the names there are, and the one that was meant."""

from collections.abc import Iterable

#: How alike two names must be, from 0 to 1, to be taken for a slip.
ALIKE = 0.7


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like another, or the only one that goes on from it."""
    from difflib import get_close_matches

    by_lower = {each.lower().replace("-", "_"): each for each in known}
    plain = name.lower().replace("-", "_")
    longer = [each for each in by_lower if each.startswith(f"{plain}_")]
    found = longer if len(longer) == 1 else get_close_matches(plain, by_lower, 1, ALIKE)
    return by_lower[found[0]] if found else None


def there_are(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence about an unknown name: what there is, and what was meant."""
    names = sorted(known)
    meant = closest(name, names)
    listed = f"there are: {', '.join(names)}." if names else "there are none."
    return listed if meant is None else f"{listed} Did you mean {meant!r}?"


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """Return the line about a pool, queue, kind … of a name that there is not."""
    return f"no {what} is named {name!r}; {there_are(name, known)}"

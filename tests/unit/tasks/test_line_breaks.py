"""Long lines are broken between fields, or else between words, and never within a value."""

import pytest

from millpond.tasks.process.terminal import break_line

LINES = {
    "it fits": ("short", "short"),
    "between fields": ("one  two words  three  four", "one  two words\n  three  four"),
    "between words": ("one two three four five", "one two three\n  four five"),
    "a number keeps its unit": ("it takes about 35 ms or so", "it takes about\n  35 ms or so"),
    "a share is one value": ("there are 1,000 of 2,000", "there are\n  1,000 of 2,000"),
    "a word longer than the terminal": (
        "see https://example.org/a/long/path",
        "see\n  https://example.org/a/long/path",
    ),
    "an indent is kept": ("    and so on and so forth", "    and so on\n      and so\n      forth"),
    "a comment stays one": ("# default; a whole number", "# default; a\n# whole number"),
    "a command to copy": ("  export A=' b c d e f g h i j'", "  export A=' b c d e f g h i j'"),
    "an object": ('{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 2, "c": 3}'),
}


@pytest.mark.parametrize("what", list(LINES))
def test_a_line_is_broken_where_a_person_would(what: str) -> None:
    """Each line is broken for a terminal of 16 columns."""
    line, expected = LINES[what]
    assert break_line(line, 16) == expected

"""A search of dead letters finds every match, in each way of writing its text in Redis."""

import re

import pytest

from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters
from millpond.broker.inspect.dead_letters import LetterFilter
from tests.harness.flower_process import Visitor, make_dead_letter

TEXTS = [
    "plain words",
    "größer",
    'a "quote"',
    "back\\slash",
    "of/a/path",
    "<b>&amp;",
    "two\nlines",
    "日本",
    "7",
]


def kind_of(text: str) -> str:
    """Return a kind with the text in it; a kind is one line."""
    return f"kind {text}".replace("\n", " ")


@pytest.fixture(scope="module")
def died(watched: Store) -> dict[str, str]:
    """Make a dead letter for each text, which is its kind as well; return the ids by text."""
    return {
        text: make_dead_letter(
            watched, "searched", f"reason {n}", f"Error: {text}!", kind=kind_of(text), kwargs={}
        )
        for n, text in enumerate(TEXTS)
    }


@pytest.mark.parametrize("text", TEXTS)
def test_matches_are_found_and_nothing_else(watched: Store, died: dict[str, str], text: str) -> None:
    """A search by kind, part of the error, task's id, or several of these returns the matches alone."""

    def found(**wanted: str) -> list[str]:
        letters = dead_letters.read_dead_letters(watched, "searched", LetterFilter(**wanted))
        return [letter.task_id for letter in letters]

    own = [died[text]]
    assert found(kind=kind_of(text)) == own
    assert found(reason=f": {text}!") == own
    assert found(reason=f"reason {TEXTS.index(text)}") == own
    assert found(task_id=died[text], kind=kind_of(text)) == own
    assert found(task_id=died[text], kind="kind") == []
    assert found(task_id=died[text], reason="Traceback") == []


def test_later_parts_have_their_place_on_an_empty_page(ann: Visitor) -> None:
    """An empty page has the places for reasons, buttons and letters, which its refreshes fill."""
    page = ann.get("/dead?queue=nothing-died-here").text
    assert "Requeue all" not in page
    assert re.findall(r'id="(\w+)-live" data-live', page) == ["reasons", "acts", "dead"]

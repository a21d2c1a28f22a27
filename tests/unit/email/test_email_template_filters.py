"""The filters of Millpond in mail templates take any value, and say why they cannot work."""

import pytest

from millpond.tasks.email.contract import SendEmail
from millpond.tasks.email.templates import render_content
from millpond.tasks.errors import BadInput


def render_text(source: str, folder=None, **values) -> str | None:
    mail = SendEmail(sender="ann@example.org", to="bob@example.org", text=source, context=values)
    return render_content(mail, folder=folder).text


@pytest.mark.parametrize(
    ("source", "value", "text"),
    [
        ("{{ x|truncate(5) }}", 12345678901, "12..."),
        ("{{ x|wordcount }}", 5, "1"),
        ("{{ x|wordcount }}", ["a b"], "2"),
        ("{{ x|default('', true)|urlize }}", None, ""),
    ],
)
def test_our_filters_take_any_value_as_text(source, value, text):
    """A number or a list is its text for a filter, as for a braced value; it ended the template process."""
    assert render_text(source, x=value) == text


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        ("{{ x|wordcount }}", None, "the filter wordcount fails: its value is null or not defined"),
        ("{{ y|urlize }}", "a", "the filter urlize fails: its value is null or not defined"),
        ("{{ x|truncate('x') }}", "abcdefghij", "the filter truncate fails: its length and leeway are whole"),
        ("{{ x|truncate(2, true) }}", "abcdefghij", "its length 2 has no room for its end, '...'"),
        ("{{ x|truncate(5, true, 5) }}", "abcdefghij", "its length 5 has no room for its end, 5"),
        ("{{ x|truncate(9, words=1) }}", "abcdefghij", "the filter truncate fails: .*argument 'words'"),
    ],
)
def test_a_filter_that_cannot_work_is_named(source, value, reason):
    """The error of a filter says which and why; it read as too much memory, or gave a longer text."""
    with pytest.raises(BadInput, match=reason):
        render_text(source, x=value)


def test_a_filter_that_fails_in_an_included_file_names_the_file(tmp_path):
    """The error of a filter names the file that calls it."""
    (tmp_path / "foot.txt").write_text("{{ name|truncate(1) }}")
    with pytest.raises(BadInput, match=r"of foot\.txt: the filter truncate fails"):
        render_text("{% include 'foot.txt' %}", folder=tmp_path, name="a")

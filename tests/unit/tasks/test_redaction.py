"""What is a secret of a task, and what of a text is cut out."""

from pydantic import Field

from millpond.tasks.contract import Contract
from millpond.tasks.redaction import scrubbed, secrets_in


class Letter(Contract, kind="test.redaction.letter"):
    to: list[str] = []
    words: dict[str, str] | None = Field(default=None, repr=False)


def cut(text: str, **kwargs: object) -> str:
    return scrubbed(text, secrets_in(Letter, (), kwargs))


def test_what_a_hidden_field_holds_is_cut_out() -> None:
    """Wherever it stands, and however Python writes it."""
    assert cut("no 's3cret!' here", words={"key": "s3cret!"}) == "no '[redacted]' here"


def test_what_an_open_field_says_too_is_no_secret() -> None:
    """An operator must read whose address was refused, although the template has it among its words."""
    error = "refused: Ann <ann@example.org>: unknown"
    words = {"address": "ann@example.org", "code": "9-18-27"}
    assert cut(error, to=["Ann <ann@example.org>"], words=words) == error
    assert cut("code 9-18-27", to=["ann@example.org"], words=words) == "code [redacted]"


def test_a_name_that_the_contract_does_not_have_opens_nothing() -> None:
    """It may be a hidden one, misspelt: what it holds stays a secret."""
    assert cut("s3cret!", wrods={"key": "s3cret!"}, words={"key": "s3cret!"}) == "[redacted]"

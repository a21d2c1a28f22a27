"""A fixture for tests of command lines that must fail."""

from collections.abc import Callable, Sequence

import pytest

import millpond


@pytest.fixture
def failed(capsys: pytest.CaptureFixture[str]) -> Callable[[Sequence[str], int], str]:
    """Return `failed(arguments, code)`, which runs a command that must fail and returns its one line."""

    def run(arguments: Sequence[str], code: int) -> str:
        assert millpond.main(arguments) == code
        shown = capsys.readouterr()
        assert (shown.out, shown.err.count("\n")) == ("", 1)
        assert shown.err.startswith("millpond: ")
        return shown.err

    return run

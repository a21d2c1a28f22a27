"""Fixtures: commands that must fail, the folder of file workers, and a mail server."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import millpond
from tests.harness.mail_sink import Sink, mail_sink


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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the module's file workers may read and write."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def sink() -> Iterator[Sink]:
    """Run a mail server that keeps the mails."""
    with mail_sink() as running:
        yield running

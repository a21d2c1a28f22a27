"""A shell completes the commands of `millpond` and their options."""

import pytest

import millpond


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("millpond que", "queue"),
        ("millpond queue pau", "pause"),
        ("millpond files checksum --alg", "--algorithm"),
    ],
)
def test_bash_completes(
    words: str, offered: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The questions that bash asks through its completion script are answered."""
    monkeypatch.setenv("_MILLPOND_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert millpond.main([]) == 0
    assert capsys.readouterr().out.split() == [offered]

"""Failures as a person sees them: each kind, not each file."""

from millpond.producer.cli.failures import Failures


def seen(*failures: tuple[str, str]) -> list[str]:
    """Return all lines that these failures print."""
    collected = Failures()
    lines = [line for label, reason in failures if (line := collected.add_failure(label, reason))]
    return [*lines, *collected.summary_lines()]


def test_a_folder_of_a_thousand_wrong_files_is_one_summary() -> None:
    """Paths, lines and values differ; the reason is the same."""
    lines = seen(
        *(
            (f"in/f{at}.csv", f"BadInput: /srv/in/f{at}.csv, line {at}: 'v{at}' is no int64")
            for at in range(1_000)
        )
    )
    assert len(lines) == 7
    assert lines[0] == "in/f0.csv: BadInput: /srv/in/f0.csv, line 0: 'v0' is no int64"
    assert lines[5].startswith("… 995 more failed like this: BadInput: /srv/in/f0.csv")
    assert lines[6] == "--json prints every failure"


def test_a_few_failures_are_each_named() -> None:
    """Up to five failures of a kind have a line each."""
    failures = [(f"f{at}", reason) for reason in ("a", "b", "c") for at in range(5)]
    assert seen(*failures) == [f"{label}: {reason}" for label, reason in failures]


def test_many_kinds_stay_few_lines() -> None:
    """A rare failure between a thousand others has its line; a thousand kinds do not."""
    rare = [("x", "rare")]
    lines = seen(
        *((f"f{at}", "usual") for at in range(500)), *rare, *((f"f{at}", "usual") for at in range(500))
    )
    assert "x: rare" in lines
    assert len(lines) == 8
    many = seen(*((f"f{at}", "reason " + chr(97 + at % 26) * (1 + at // 26)) for at in range(990)))
    assert len(many) == 20 + 10 + 2
    assert "and 960 for 960 other reasons" in many[-2]

"""The steps that a page asks of its reader: files to write and commands to enter, in the order of the page.

A block of Python or TOML is the content of the file that the text before it names last, or is added to it if
the text has the words "add to it". In a console block a line after `$ ` is a command, and the lines below it
are its output. `…` stands for any text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

ANYTHING = "…"
_NAME = re.compile(r"`([\w-]+\.(?:py|toml))`")


@dataclass(frozen=True)
class File:
    """A file that the reader writes in the folder where the terminal stands."""

    line: int
    name: str
    text: str
    is_added: bool


@dataclass(frozen=True)
class Command:
    """A command that the reader enters, and the lines of its output. `is_first`: of its console block."""

    line: int
    text: str
    shown: tuple[str, ...]
    is_first: bool


def steps(page: str) -> Iterator[File | Command]:
    """Yield the steps of the reader, in order. Raises `ValueError` for a block without the name of a file."""
    before: list[str] = []
    language, begun, block = None, 0, list[str]()
    for number, line in enumerate(page.splitlines(), 1):
        if not line.startswith("```"):
            (before if language is None else block).append(line)
        elif language is None:
            language, begun, block = line[3:], number, []
        else:
            if language == "console":
                yield from _commands(block, begun + 1)
            elif language in ("python", "toml"):
                yield _file(block, begun, " ".join(before))
            language, before = None, []


def pattern(shown: str) -> re.Pattern[str]:
    """Return a pattern that finds a line of the page in the output of a command."""
    return re.compile(r"^\s*" + r".*".join(re.escape(part) for part in shown.strip().split(ANYTHING)), re.M)


def _file(block: list[str], line: int, before: str) -> File:
    names = _NAME.findall(before)
    if not names:
        raise ValueError(f"README.md:{line}: no file is named for these lines")
    return File(line, names[-1], "\n".join([*block, ""]), "add to it" in before)


def _commands(block: list[str], begun: int) -> Iterator[Command]:
    starts = [at for at, line in enumerate(block) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(block)], strict=True):
        shown = tuple(line for line in block[start + 1 : end] if line.strip() not in ("", ANYTHING))
        yield Command(begun + start, block[start][2:], shown, start == starts[0])

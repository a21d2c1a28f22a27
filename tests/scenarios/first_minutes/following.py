"""Run the commands of a page one after the other, and stop at the first that fails for a newcomer."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

from tests.harness.own_server import free_port
from tests.scenarios.first_minutes.page import ANYTHING, Command, File, pattern, steps
from tests.scenarios.first_minutes.terminal import Ended, Kept, Terminal

#: Beginnings of commands that stay in the foreground, and their output when they are ready (None: no output).
STAY = {"millpond up": "Ctrl-C stops", "python -m aiosmtpd": None}
#: Commands that would run these tests again.
LEFT_OUT = ("make test",)
#: Commands that are replaced by shorter ones.
SMALLER = {"make demo": "make demo QUICK=1"}
COMMAND_SECONDS = 900.0
READY_SECONDS = 120.0
#: Beginnings of variables that are passed on: those of tools, such as an index or a cache.
_KEPT = (
    "PATH",
    "TERM",
    "LANG",
    "TMPDIR",
    "PIP_",
    "UV_",
    "SSL_CERT",
    "REQUESTS_CA",
    "HTTP",
    "http",
    "NO_PROXY",
)


class Stopped(Exception):
    """Raised where a newcomer could not go on."""


@dataclass(frozen=True)
class Done:
    """A command of the page that succeeded, and its longest time without output."""

    line: int
    text: str
    seconds: float
    silent_seconds: float


@dataclass
class Reader:
    """A newcomer who follows a page: the terminals, and the commands that were run in them.

    `clone` is the folder of the first terminal. With a `wheel` there is no clone, and the wheel is installed.
    """

    clone: Path
    env: Mapping[str, str]
    wheel: Path | None = None
    say: Callable[[str], None] = print
    done: list[Done] = field(default_factory=list)
    terminals: list[Terminal] = field(default_factory=list)
    #: Commands in the foreground whose output comes after later commands.
    _later: list[tuple[Command, Kept]] = field(default_factory=list)
    _current: Terminal | None = None
    #: The port of the page's mail server may be taken on this machine.
    _port: str = field(default_factory=lambda: str(free_port()))

    def follow(self, page: str) -> None:
        """Follow the whole page. Raises `Stopped` at the first line that does not do what the page shows."""
        try:
            for step in steps(page):
                if isinstance(step, File):
                    self._write(step)
                elif not step.text.startswith(LEFT_OUT):
                    self._enter(step)
            self._wait_for_what_comes_later()
        finally:
            codes = [each.keeps.interrupt(within_seconds=60) for each in self.terminals if each.keeps]
        if any(code not in (0, 130) for code in codes):
            raise Stopped(f"what stayed in the foreground ended with {codes} at Ctrl-C")

    def _wait_for_what_comes_later(self) -> None:
        for command, kept in self._later:
            _until(lambda: not _missing(command, kept.printed))  # noqa: B023 - called here
            if missing := _missing(command, kept.printed):
                raise Stopped(_report(command, f"never prints {missing[0]!r}", kept.printed))

    def _write(self, file: File) -> None:
        place = (self._current or self._free_terminal()).folder / file.name
        text = file.text.replace("8025", self._port)
        if file.is_added:
            text = f"{place.read_text()}\n{text}"
        place.write_text(text)

    def _enter(self, command: Command) -> None:
        text = self._entered(command)
        if text is None:
            return
        if command.is_first or self._current is None:
            self._current = self._free_terminal(stopping=text)
        stays = next((ready for start, ready in STAY.items() if text.startswith(start)), "")
        if stays == "":
            ended = self._current.run(text, within_seconds=COMMAND_SECONDS)
            self._judge(command, text, ended)
            return
        begun = monotonic()
        kept = self._current.keep(text)
        if stays is None:
            self._later.append((command, kept))
        else:
            _until(lambda: stays in kept.printed or kept.code is not None)
            missing = _missing(command, kept.printed)
            if kept.code is not None or missing:
                raise Stopped(_report(command, f"ended with {kept.code}, misses {missing}", kept.printed))
        self._note(Done(command.line, text, monotonic() - begun, 0))

    def _entered(self, command: Command) -> str | None:
        """Return the command to enter for a line of the page; None if the line needs the missing clone."""
        text = SMALLER.get(command.text, command.text).replace("8025", self._port)
        if self.wheel is not None:
            if text.startswith("make "):
                return None
            text = text.replace("'.[", f"'{self.wheel}[")
        if ANYTHING not in text:
            return text
        printed = [terminal.keeps.printed for terminal in self.terminals if terminal.keeps]
        found = [match[0].strip() for each in printed for match in pattern(text).finditer(each)]
        if not found:
            raise Stopped(f"README.md:{command.line}: nothing has printed a line to copy for: {command.text}")
        return found[-1]

    def _judge(self, command: Command, text: str, ended: Ended) -> None:
        if ended.code:
            raise Stopped(_report(command, f"exit code {ended.code}", ended.printed))
        missing = () if command.text in SMALLER else _missing(command, ended.printed)
        if missing:
            raise Stopped(_report(command, f"does not print {missing[0]!r}", ended.printed))
        self._note(Done(command.line, text, ended.seconds, ended.silent_seconds))
        for each in self.terminals:
            if each.keeps and each.keeps.code is not None:
                raise Stopped(f"{each.keeps.command} has ended: {each.keeps.printed[-2000:]}")

    def _note(self, done: Done) -> None:
        self.done.append(done)
        silent = f", silent for {done.silent_seconds:.1f} s" if done.silent_seconds >= 1 else ""
        self.say(f"README.md:{done.line}: {done.text}  ({done.seconds:.1f} s{silent})")

    def _free_terminal(self, stopping: str = "") -> Terminal:
        """Return a terminal without a command in the foreground, a new one if there is none.

        If the command `stopping` is in the foreground of one, that is interrupted and its terminal returned.
        """
        for each in self.terminals:
            if each.keeps and each.keeps.command == stopping:
                each.keeps.interrupt(within_seconds=60)
                return each
        free = [each for each in self.terminals if each.keeps is None]
        if not free:
            home = Path(self.env["HOME"])
            free = [Terminal(home if self.terminals or self.wheel else self.clone, self.env)]
            self.terminals += free
        return free[0]


def fresh_env(home: Path, python: Path) -> dict[str, str]:
    """Return the environment of a newcomer with an empty home, whose `python3` is `python`."""
    env = {name: value for name, value in os.environ.items() if name.startswith(_KEPT)}
    ours, own = Path.home(), str(Path(sys.prefix) / "bin")
    places = [
        each
        for each in env.get("PATH", os.defpath).split(":")
        if each != own or sys.prefix == sys.base_prefix
    ]
    for name, place in {
        "PIP_CACHE_DIR": ours / ".cache/pip",
        "UV_CACHE_DIR": ours / ".cache/uv",
        "PIP_CONFIG_FILE": ours / ".config/pip/pip.conf",
    }.items():
        if place.exists():
            env.setdefault(name, str(place))
    return {**env, "HOME": str(home), "PATH": ":".join([str(python.parent), *places]), "TERM": "dumb"}


def copy_clone(top: Path, clone: Path) -> Path:
    """Copy the files of a checkout that git tracks, or would add, into the folder `clone`. Return `clone`."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=top, text=True
    )
    for name in filter(None, listed.split("\0")):
        if os.path.lexists(top / name):
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(top / name, clone / name, follow_symlinks=False)
    return clone


def _missing(command: Command, printed: str) -> tuple[str, ...]:
    return tuple(line for line in command.shown if not pattern(line).search(printed))


def _report(command: Command, what: str, printed: str) -> str:
    return f"README.md:{command.line}: $ {command.text}\n{what}; it printed:\n{printed[-4000:]}"


def _until(holds: Callable[[], bool]) -> None:
    deadline = monotonic() + READY_SECONDS
    while not holds() and monotonic() < deadline:
        sleep(0.05)

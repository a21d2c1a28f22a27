"""Keep the processes of pools running: start them, restart one that dies, stop them within the deadline.

    SIGTERM, SIGINT   drain: every process finishes what it runs; a second one does not wait
    SIGHUP            replace every process by a new one, each finishing what it runs

Whatever the processes do, this ends `drain_seconds` + the stop margin after the first signal. Started as
`millpond worker POOL…`, or by the embedded set-up as `python -m millpond.worker.supervise.supervisor POOL…`.
"""

import logging
import os
import selectors
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from time import monotonic

from millpond.tasks.errors import SettingsError
from millpond.tasks.module_loading import find
from millpond.tasks.name_suggestions import unknown
from millpond.tasks.pools import STOP_MARGIN_SECONDS, Table
from millpond.tasks.process.logs import log_to_stderr
from millpond.tasks.settings import settings
from millpond.worker.process import command
from millpond.worker.report.health_server import health_page
from millpond.worker.supervise.child_process import Member, how_it_ended
from millpond.worker.supervise.process_numbers import Numbers
from millpond.worker.supervise.signal_pipe import signals_as_bytes

logger = logging.getLogger("millpond.supervisor")

#: What a process gets after a second signal to give back what it holds.
_GIVE_BACK_SECONDS = 3.0

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def supervise(pools: Sequence[str], *, ready_fd: int | None = None) -> int:
    """Run all processes of the named pools until told to stop; return the exit code.

    0: every process ended by itself after a signal. 1: one had to be killed, or none took messages before
    one said that it cannot start with these settings. `ready_fd` gets a line: `ready`, when all take
    messages, or why one died before that. Raises `SettingsError` for an unknown pool.
    """
    configured = settings()
    if not configured.broker_url:
        raise SettingsError("the workers have no broker: set MILLPOND_BROKER_URL, or use millpond up")
    for module in configured.kinds:
        find(module)
    with (
        Numbers(configured.broker_url, configured.key_prefix) as numbers,
        health_page(configured.health_address, configured.health_port, services=pools),
    ):
        members = list(members_of(pools, configured.table, numbers))
        return Supervisor(members, configured.drain_seconds + STOP_MARGIN_SECONDS, ready_fd).run()


def members_of(pools: Iterable[str], table: Table, numbers: Numbers) -> Iterable[Member]:
    """Yield the processes of pools by the table."""
    for name in pools:
        if name not in table.pools:
            raise SettingsError(unknown("pool", name, table.pools))
        for number in islice(numbers.free(name), table.pools[name].processes):
            yield Member(name, number, partial(_command, name, number))


def _command(pool: str, number: int, ready_fd: int) -> list[str]:
    return command(pool, number, ready_fd=ready_fd)


class Supervisor:
    """Watch members; everything happens in `run`, in answer to a signal, a pipe or the clock."""

    def __init__(self, members: Sequence[Member], stop_seconds: float, ready_fd: int | None = None) -> None:
        self.members = members
        self.stop_seconds = stop_seconds
        self.ready_fd = ready_fd
        self.selector = selectors.DefaultSelector()
        #: When what still runs is killed (monotonic seconds); None: nobody asked to stop.
        self.deadline: float | None = None
        self.killed = False
        self.has_been_ready = False
        self.cannot_start = False
        self.replacing: set[int] = set()

    def run(self) -> int:
        """Start the members and return when they have all ended after a signal."""
        with signals_as_bytes(_WATCHED) as arrived, self.selector:
            self.selector.register(arrived, selectors.EVENT_READ, None)
            for member in self.members:
                self._start(member)
            while self.deadline is None or any(member.process for member in self.members):
                for key, _ in self.selector.select(self._seconds_to_next()):
                    self._on_signals(arrived) if key.data is None else self._on_ready(key.data)
                self._on_clock()
        logger.info("all processes have ended%s", ", some by force" if self.killed else "")
        return 1 if self.killed or self.cannot_start else 0

    def _on_signals(self, arrived: int) -> None:
        for number in os.read(arrived, 4096):
            if number == signal.SIGCHLD:
                self._reap()
            elif number == signal.SIGHUP:
                self._replace()
            else:
                self._stop(signal.Signals(number))

    def _on_ready(self, member: Member) -> None:
        if member.ready_end is None:
            return  # it has ended meanwhile: a signal that came with this said so
        self.selector.unregister(member.ready_end)
        if member.became_ready():
            self.has_been_ready = True
            logger.info("%s takes messages after %.1f s", member.name, monotonic() - member.started_at)
            if all(each.ready for each in self.members):
                self._tell("ready")

    def _on_clock(self) -> None:
        now = monotonic()
        for member in self.members:
            if member.restart_at is not None and now >= member.restart_at:
                self._start(member)
        if self.deadline is not None and now >= self.deadline:
            self._kill()

    def _seconds_to_next(self) -> float | None:
        times = [member.restart_at for member in self.members if member.restart_at is not None]
        if self.deadline is not None and not self.killed:
            times.append(self.deadline)
        return max(0.0, min(times) - monotonic()) if times else None

    def _start(self, member: Member) -> None:
        self.replacing.discard(id(member))
        try:
            pid = member.start()
        except OSError as error:  # no process or descriptor to be had now: the others work on
            wait = member.plan_restart(asked=False)
            logger.error(
                "%s cannot be started: %s; trying again in %.1f s", member.name, error.strerror, wait
            )
            return
        assert member.ready_end is not None
        self.selector.register(member.ready_end, selectors.EVENT_READ, member)
        logger.info("%s pid=%d started", member.name, pid)

    def _stop(self, number: signal.Signals) -> None:
        running = [member for member in self.members if member.process]
        if self.deadline is not None:
            logger.warning("%s again: not waiting for what still runs", number.name)
            self.deadline = min(self.deadline, monotonic() + _GIVE_BACK_SECONDS)
        else:
            logger.info(
                "%s: draining (%d running), at most %.0f s", number.name, len(running), self.stop_seconds
            )
            self.deadline = monotonic() + self.stop_seconds
        for member in self.members:
            member.restart_at = None
            member.terminate()

    def _replace(self) -> None:
        if self.deadline is None:
            logger.info("SIGHUP: replacing every process")
            for member in self.members:
                self.replacing.add(id(member))
                member.terminate()

    def _kill(self) -> None:
        running = [member for member in self.members if member.process and not self.killed]
        for member in running:
            pid = member.process.pid if member.process else 0
            logger.warning("%s pid=%d killed; what it held is delivered again", member.name, pid)
            member.kill()
        self.killed = self.killed or bool(running)

    def _reap(self) -> None:
        """Bury every child that has ended: members, and strangers left to process 1 of a container."""
        while dead := _next_dead():
            member = next((each for each in self.members if each.process and each.process.pid == dead), None)
            if member is None:
                os.waitpid(dead, 0)
            else:
                self._bury(member)

    def _bury(self, member: Member) -> None:
        if member.ready_end is not None:
            self.selector.unregister(member.ready_end)
        was_ready, pid = member.ready, member.process.pid if member.process else 0
        code = member.buried()
        ended = how_it_ended(code)
        if self.deadline is not None:
            logger.info("%s pid=%d %s", member.name, pid, ended)
            return
        if code == os.EX_CONFIG and not self.has_been_ready:
            self._give_up(f"{member.name} {ended}")
            return
        wait = member.plan_restart(asked=id(member) in self.replacing)
        logger.warning("%s pid=%d %s; starting it again in %.1f s", member.name, pid, ended, wait)
        if not was_ready:
            self._tell(f"{member.name} {ended} before it took messages")

    def _give_up(self, why: str) -> None:
        """Stop what has been started: another attempt would end the same way."""
        logger.error("%s before it took messages: mend first what it says above", why)
        self._tell(f"{why} before it took messages")
        self.cannot_start = True
        self.deadline = monotonic() + self.stop_seconds
        for member in self.members:
            member.restart_at = None
            member.terminate()

    def _tell(self, line: str) -> None:
        if self.ready_fd is not None:
            with suppress(BrokenPipeError):  # whoever waited has gone
                os.write(self.ready_fd, f"{line}\n".encode())
            os.close(self.ready_fd)
            self.ready_fd = None


def _next_dead() -> int | None:
    """Return the id of a child that has ended, without reaping it."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found else None


def main(argv: Sequence[str] | None = None) -> None:
    """Supervise the pools that the arguments name, logging to stderr."""
    parser = ArgumentParser(prog="millpond.worker.supervise.supervisor")
    parser.add_argument("pools", nargs="+")
    parser.add_argument("--ready-fd", type=int)
    asked = parser.parse_args(argv)
    log_to_stderr(settings().log_format)
    try:
        sys.exit(supervise(asked.pools, ready_fd=asked.ready_fd))
    except SettingsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

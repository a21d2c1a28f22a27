"""The supervisor of pools: starts their processes, restarts one that dies, stops all within the deadline.

    SIGTERM, SIGINT   drain: every process finishes its running tasks; a second signal does not wait
    SIGHUP            replace every process; each finishes its running tasks first

In every case the supervisor ends `drain_seconds` + the stop margin after the first signal. It is
started as `millpond worker POOL…`, and by the embedded set-up as
`python -m millpond.worker.supervise.supervisor POOL…`.
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

from millpond.broker.cluster import check_at_start
from millpond.tasks.errors import BadBrokerUrl, SettingsError
from millpond.tasks.module_loading import check_module
from millpond.tasks.name_suggestions import unknown_name
from millpond.tasks.pools import STOP_MARGIN_SECONDS, Table
from millpond.tasks.process.logs import log_to_stderr
from millpond.tasks.settings import settings
from millpond.worker.process import process_command
from millpond.worker.report.health_server import serve_health
from millpond.worker.supervise.child_process import ChildProcess, describe_exit
from millpond.worker.supervise.process_numbers import ProcessNumbers
from millpond.worker.supervise.signal_pipe import signal_pipe

logger = logging.getLogger("millpond.supervisor")

#: The time that a process gets after a second signal to release its messages.
_RELEASE_SECONDS = 3.0

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def supervise(pools: Sequence[str], *, ready_fd: int | None = None) -> int:
    """Run all processes of the named pools, each pool once, until a signal stops them. Return the exit code.

    0: every process ended by itself after a signal. 1: a process had to be killed, or one reported that it
    cannot start with these settings before any was ready. `ready_fd` receives one line: `ready` once all
    processes take messages, or the reason why one ended before. Raises `SettingsError` for an unknown pool,
    and `BadBrokerUrl`.
    """
    configured, pools = settings(), list(dict.fromkeys(pools))
    if not configured.broker_url:
        raise SettingsError("the workers have no broker: set MILLPOND_BROKER_URL, or use millpond up")
    check_at_start(configured.broker_url, **configured.broker_options)
    for module in configured.kinds:
        check_module(module)
    with (
        ProcessNumbers(configured.broker_url, configured.key_prefix) as numbers,
        serve_health(configured.health_address, configured.health_port, services=pools),
    ):
        children = list(child_processes(pools, configured.table, numbers))
        return Supervisor(children, configured.drain_seconds + STOP_MARGIN_SECONDS, ready_fd).run()


def child_processes(pools: Iterable[str], table: Table, numbers: ProcessNumbers) -> Iterable[ChildProcess]:
    """Yield the processes of the pools, as the pools table defines them.

    Raises `SettingsError` for a pool that the table does not have.
    """
    for name in pools:
        if name not in table.pools:
            raise SettingsError(unknown_name("pool", name, table.pools))
        for number in islice(numbers.lock_free_numbers(name), table.pools[name].processes):
            yield ChildProcess(name, number, partial(_process_command, name, number))


def _process_command(pool: str, number: int, ready_fd: int) -> list[str]:
    """Return the command line of a worker process, which writes to `ready_fd` once it is ready."""
    return process_command(pool, number, ready_fd=ready_fd)


class Supervisor:
    """Supervises child processes. All work is done in `run`, on a signal, a pipe or a timer."""

    def __init__(
        self, children: Sequence[ChildProcess], stop_seconds: float, ready_fd: int | None = None
    ) -> None:
        self.children = children
        self.stop_seconds = stop_seconds
        self.ready_fd = ready_fd
        self.selector = selectors.DefaultSelector()
        #: The time to kill the remaining processes (monotonic seconds); None before a stop.
        self.deadline: float | None = None
        self.killed = False
        self.has_been_ready = False
        self.cannot_start = False
        self.replacing: set[int] = set()

    def run(self) -> int:
        """Start the processes and return once all have ended after a signal."""
        with signal_pipe(_WATCHED) as arrived, self.selector:
            self.selector.register(arrived, selectors.EVENT_READ, None)
            for child in self.children:
                self._start_child(child)
            while self.deadline is None or any(child.process for child in self.children):
                for key, _ in self.selector.select(self._seconds_to_next_timer()):
                    self._on_signals(arrived) if key.data is None else self._on_ready(key.data)
                self._on_clock()
        logger.info("all processes have ended%s", ", some by force" if self.killed else "")
        return 1 if self.killed or self.cannot_start else 0

    def _on_signals(self, arrived: int) -> None:
        """Act on the signals that arrived: reap, replace, or stop."""
        for number in os.read(arrived, 4096):
            if number == signal.SIGCHLD:
                self._reap_ended()
            elif number == signal.SIGHUP:
                self._replace_children()
            else:
                self._stop_children(signal.Signals(number))

    def _on_ready(self, child: ChildProcess) -> None:
        """Record that a process takes messages, and announce it once all do."""
        if child.ready_pipe is None:
            return  # it has ended meanwhile, and SIGCHLD has been handled
        self.selector.unregister(child.ready_pipe)
        if child.read_ready():
            self.has_been_ready = True
            logger.info("%s takes messages after %.1f s", child.name, monotonic() - child.started_at)
            if all(each.ready for each in self.children):
                self._announce_readiness("ready")

    def _on_clock(self) -> None:
        """Start the processes whose wait is over, and kill all at the deadline."""
        now = monotonic()
        for child in self.children:
            if child.restart_at is not None and now >= child.restart_at:
                self._start_child(child)
        if self.deadline is not None and now >= self.deadline:
            self._kill_children()

    def _seconds_to_next_timer(self) -> float | None:
        """Return the seconds until a restart or the deadline is due, or None if neither is."""
        times = [child.restart_at for child in self.children if child.restart_at is not None]
        if self.deadline is not None and not self.killed:
            times.append(self.deadline)
        return max(0.0, min(times) - monotonic()) if times else None

    def _start_child(self, child: ChildProcess) -> None:
        """Start a process, or plan another attempt if the system has none free."""
        self.replacing.discard(id(child))
        try:
            pid = child.start()
        except OSError as error:  # no process or descriptor is available now, and the other processes go on
            wait = child.plan_restart(requested=False)
            logger.error("%s cannot be started: %s; trying again in %.1f s", child.name, error.strerror, wait)
            return
        assert child.ready_pipe is not None
        self.selector.register(child.ready_pipe, selectors.EVENT_READ, child)
        logger.info("%s pid=%d started", child.name, pid)

    def _stop_children(self, number: signal.Signals) -> None:
        """Terminate all processes and set the deadline. A second signal moves it to now."""
        running = [child for child in self.children if child.process]
        if self.deadline is not None:
            logger.warning("%s again: not waiting for the running tasks", number.name)
            self.deadline = min(self.deadline, monotonic() + _RELEASE_SECONDS)
        else:
            logger.info(
                "%s: draining (%d running), at most %.0f s", number.name, len(running), self.stop_seconds
            )
            self.deadline = monotonic() + self.stop_seconds
        for child in self.children:
            child.restart_at = None
            child.terminate()

    def _replace_children(self) -> None:
        """Terminate every process, and start a new one in its place."""
        if self.deadline is None:
            logger.info("SIGHUP: replacing every process")
            for child in self.children:
                self.replacing.add(id(child))
                child.terminate()

    def _kill_children(self) -> None:
        """Kill the processes that still run."""
        running = [child for child in self.children if child.process and not self.killed]
        for child in running:
            pid = child.process.pid if child.process else 0
            logger.warning("%s pid=%d killed; its messages in flight are delivered again", child.name, pid)
            child.kill()
        self.killed = self.killed or bool(running)

    def _reap_ended(self) -> None:
        """Reap every process that has ended, also orphans if this is process 1 of a container."""
        while ended := _next_ended():
            child = next((each for each in self.children if each.process and each.process.pid == ended), None)
            if child is None:
                os.waitpid(ended, 0)
            else:
                self._on_exit(child)

    def _on_exit(self, child: ChildProcess) -> None:
        """Plan the restart of a process that has ended, unless all stop.

        Give up if it reports bad settings.
        """
        if child.ready_pipe is not None:
            self.selector.unregister(child.ready_pipe)
        was_ready, pid = child.ready, child.process.pid if child.process else 0
        code = child.reap()
        outcome = describe_exit(code)
        if self.deadline is not None:
            logger.info("%s pid=%d %s", child.name, pid, outcome)
            return
        if code == os.EX_CONFIG and not self.has_been_ready:
            self._give_up(f"{child.name} {outcome}")
            return
        wait = child.plan_restart(requested=id(child) in self.replacing)
        logger.warning("%s pid=%d %s; restarting it in %.1f s", child.name, pid, outcome, wait)
        if not was_ready:
            self._announce_readiness(f"{child.name} {outcome} before it took messages")

    def _give_up(self, reason: str) -> None:
        """Stop all processes: another attempt would end in the same way."""
        logger.error("%s before it took messages: correct the error above, then start again", reason)
        self._announce_readiness(f"{reason} before it took messages")
        self.cannot_start = True
        self.deadline = monotonic() + self.stop_seconds
        for child in self.children:
            child.restart_at = None
            child.terminate()

    def _announce_readiness(self, line: str) -> None:
        """Write one line to the pipe of readiness, and close it."""
        if self.ready_fd is not None:
            with suppress(BrokenPipeError):  # the reader of the pipe has ended
                os.write(self.ready_fd, f"{line}\n".encode())
            os.close(self.ready_fd)
            self.ready_fd = None


def _next_ended() -> int | None:
    """Return the id of a process that has ended, without reaping it."""
    try:
        status = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return status.si_pid if status else None


def main(argv: Sequence[str] | None = None) -> None:
    """Supervise the pools named as arguments, and log to stderr."""
    parser = ArgumentParser(prog="millpond.worker.supervise.supervisor")
    parser.add_argument("pools", nargs="+")
    parser.add_argument("--ready-fd", type=int)
    asked = parser.parse_args(argv)
    log_to_stderr(settings().log_format)
    try:
        sys.exit(supervise(asked.pools, ready_fd=asked.ready_fd))
    except (SettingsError, BadBrokerUrl) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

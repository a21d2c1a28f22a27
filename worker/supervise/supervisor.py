"""The supervisor of pools: starts their processes, restarts one that dies, stops all within the deadline.

    SIGTERM, SIGINT   drain: every process finishes its running tasks; a second signal does not wait
    SIGHUP            replace every process; each finishes its running tasks first

The supervisor ends at most `drain_seconds` + the stop margin after the first SIGTERM or SIGINT. It is started
as `millpond worker POOL…`, and by the embedded set-up as `python -m millpond.worker.supervise.supervisor
POOL…`.
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

from millpond.broker.cluster import check_cluster_at_start
from millpond.tasks.errors import BadBrokerUrl, SettingsError
from millpond.tasks.module_loading import check_module
from millpond.tasks.name_suggestions import unknown_name_text
from millpond.tasks.pools import STOP_MARGIN_SECONDS, PoolsTable
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

#: The exit code for wrong settings, as for those that the supervisor itself refuses (cli/exit_codes.py).
_WRONG_SETTINGS = 2

_HANDLED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


def supervise(pools: Sequence[str], *, ready_fd: int | None = None) -> int:
    """Run all processes of the named pools, each pool once, until a signal stops them. Return the exit code.

    0: every process ended by itself after a signal. 1: a process had to be killed. 2: one reported, before
    any was ready, that it cannot start with these settings. `ready_fd` receives one line: `ready` once all
    processes take messages, or the reason why one ended before. Raises `SettingsError` for an unknown pool,
    and `BadBrokerUrl`.
    """
    configured, pools = settings(), list(dict.fromkeys(pools))
    if not configured.broker_url:
        raise SettingsError("the workers have no broker: set MILLPOND_BROKER_URL, or use millpond up")
    check_cluster_at_start(configured.broker_url, **configured.broker_options)
    for module in configured.kinds:
        check_module(module)
    with (
        ProcessNumbers(configured.broker_url, configured.key_prefix) as numbers,
        serve_health(configured.health_address, configured.health_port, services=pools),
    ):
        children = list(child_processes(pools, configured.table, numbers))
        return Supervisor(children, configured.drain_seconds + STOP_MARGIN_SECONDS, ready_fd).run()


def child_processes(
    pools: Iterable[str], table: PoolsTable, numbers: ProcessNumbers
) -> Iterable[ChildProcess]:
    """Yield the processes of the pools, as the pools table defines them.

    Raises `SettingsError` for a pool that the table does not have.
    """
    for name in pools:
        if name not in table.pools:
            raise SettingsError(unknown_name_text("pool", name, table.pools))
        for number in islice(numbers.lock_free_numbers(name), table.pools[name].processes):
            yield ChildProcess(name, number, partial(process_command, name, number))


class Supervisor:
    """Supervises child processes.

    All work is done in `run`, when a signal, a pipe or a timer calls for it.
    """

    def __init__(
        self, children: Sequence[ChildProcess], stop_seconds: float, ready_fd: int | None = None
    ) -> None:
        self.children = children
        self.stop_seconds = stop_seconds
        self.ready_fd = ready_fd
        self.selector = selectors.DefaultSelector()
        #: The time to kill the remaining processes (monotonic seconds); None before a stop.
        self.deadline: float | None = None
        #: True once processes were killed at the deadline.
        self.killed = False
        self.any_was_ready = False
        self.gave_up = False
        #: The `id()` of each `ChildProcess` that SIGHUP replaces.
        self.replacing: set[int] = set()

    def run(self) -> int:
        """Start the processes. After a stop has ended them all, return the exit code."""
        with signal_pipe(_HANDLED_SIGNALS) as signals, self.selector:
            self.selector.register(signals, selectors.EVENT_READ, None)
            for child in self.children:
                self._start_child(child)
            while self.deadline is None or any(child.process for child in self.children):
                for key, _ in self.selector.select(self._seconds_to_next_timer()):
                    self._on_signals(signals) if key.data is None else self._on_ready(key.data)
                self._on_timer()
        logger.info("all processes have ended%s", ", some by force" if self.killed else "")
        if self.gave_up:
            return _WRONG_SETTINGS
        return 1 if self.killed else 0

    def _on_signals(self, descriptor: int) -> None:
        """Read the signals that have come, and reap, replace or stop the processes."""
        for number in os.read(descriptor, 4096):
            if number == signal.SIGCHLD:
                self._reap_ended()
            elif number == signal.SIGHUP:
                self._replace_children()
            else:
                self._stop_children(signal.Signals(number))

    def _on_ready(self, child: ChildProcess) -> None:
        """Read the pipe of a process that became ready or closed it.

        Announce readiness once all are ready.
        """
        if child.ready_pipe is None:
            return  # it has ended meanwhile, and SIGCHLD has been handled
        self.selector.unregister(child.ready_pipe)
        if child.read_ready():
            self.any_was_ready = True
            logger.info("%s takes messages after %.1f s", child.name, monotonic() - child.started_at)
            if all(other.ready for other in self.children):
                self._announce_readiness("ready")

    def _on_timer(self) -> None:
        """Start the processes whose restart is due, and kill all at the deadline."""
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
        """Start a process, or plan another attempt if the system cannot start one now."""
        self.replacing.discard(id(child))
        try:
            pid = child.start()
        except OSError as error:  # no process or descriptor is free; the other processes go on
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
            self._terminate_children(min(self.deadline, monotonic() + _RELEASE_SECONDS))
        else:
            processes = "1 process" if len(running) == 1 else f"{len(running)} processes"
            logger.info("%s: draining %s, at most %.0f s", number.name, processes, self.stop_seconds)
            self._terminate_children(monotonic() + self.stop_seconds)

    def _terminate_children(self, deadline: float) -> None:
        """Terminate all processes, restart none, and kill at `deadline` those that still run."""
        self.deadline = deadline
        for child in self.children:
            child.restart_at = None
            child.terminate()

    def _replace_children(self) -> None:
        """Terminate every process. Each is started again when it has ended."""
        if self.deadline is None:
            logger.info("SIGHUP: replacing every process")
            for child in self.children:
                self.replacing.add(id(child))
                child.terminate()

    def _kill_children(self) -> None:
        """Kill the processes that still run, once."""
        if self.killed:
            return
        for child in self.children:
            if child.process:
                logger.warning(
                    "%s pid=%d killed; its messages in flight are delivered again",
                    *(child.name, child.process.pid),
                )
                child.kill()
                self.killed = True

    def _reap_ended(self) -> None:
        """Reap every child process that has ended, also an orphan if this is process 1 of a container."""
        while ended_pid := _find_ended_process():
            by_pid = {child.process.pid: child for child in self.children if child.process}
            if ended_pid in by_pid:
                self._on_exit(by_pid[ended_pid])
            else:
                os.waitpid(ended_pid, 0)

    def _on_exit(self, child: ChildProcess) -> None:
        """Reap a process that has ended, and plan its restart unless all stop.

        Give up if it reports bad settings before any process was ready.
        """
        if child.ready_pipe is not None:
            self.selector.unregister(child.ready_pipe)
        was_ready, pid = child.ready, child.process.pid if child.process else 0
        code = child.reap()
        outcome = describe_exit(code)
        if self.deadline is not None:
            logger.info("%s pid=%d %s", child.name, pid, outcome)
            return
        if code == os.EX_CONFIG and not self.any_was_ready:
            self._give_up(f"{child.name} {outcome}")
            return
        wait = child.plan_restart(requested=id(child) in self.replacing)
        logger.warning("%s pid=%d %s; restarting it in %.1f s", child.name, pid, outcome, wait)
        if not was_ready:
            self._announce_readiness(f"{child.name} {outcome} before it took messages")

    def _give_up(self, reason: str) -> None:
        """Stop all processes, because another attempt would end in the same way."""
        logger.error("%s before it took messages: correct the error above, then start again", reason)
        self._announce_readiness(f"{reason} before it took messages")
        self.gave_up = True
        self._terminate_children(monotonic() + self.stop_seconds)

    def _announce_readiness(self, line: str) -> None:
        """Write one line to `ready_fd` and close it. Does nothing after the first line."""
        if self.ready_fd is not None:
            with suppress(BrokenPipeError):  # the reader of the pipe has ended
                os.write(self.ready_fd, f"{line}\n".encode())
            os.close(self.ready_fd)
            self.ready_fd = None


def _find_ended_process() -> int | None:
    """Return the id of a child process that has ended, without reaping it, or None if there is none."""
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
    arguments = parser.parse_args(argv)
    log_to_stderr(settings().log_format)
    try:
        sys.exit(supervise(arguments.pools, ready_fd=arguments.ready_fd))
    except (SettingsError, BadBrokerUrl) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

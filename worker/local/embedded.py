"""Run everything on this machine for as long as a `with` block lasts: a broker, the pools, Flower.

Start: the private Valkey (unless the settings name a broker), then the pools and Flower together; the block
is entered when all are ready. Stop: the pools drain, then Flower, then Valkey, which writes down what was not
done. All are child processes tied to this one: nothing outlives it, even when it is killed.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from millpond.tasks.errors import SettingsError, StartError
from millpond.tasks.name_suggestions import unknown
from millpond.tasks.pools import STOP_MARGIN_SECONDS
from millpond.tasks.process.running_up import LocalInstance
from millpond.tasks.settings import Settings, environment
from millpond.worker.local import valkey
from millpond.worker.local.addresses import Addresses, Wanted
from millpond.worker.local.data_folder import Folder, claimed
from millpond.worker.local.service import Part, launch

#: How long pools and Flower may take to be ready.
READY_SECONDS = 90.0
_FLOWER_STOP_SECONDS = 5.0
_SCHEDULER_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Embedded:
    """Say what runs where. `settings` are the ones given, with the broker's URL: what a client needs."""

    settings: Settings = field(repr=False)
    data_dir: Path
    flower_url: str | None
    pids: dict[str, int]

    @property
    def url(self) -> str:
        """Return the broker's URL, with its password."""
        return self.settings.broker_url or ""

    def wait(self) -> str:
        """Wait until a part ends by itself, which none should; return its name. Ctrl-C interrupts."""
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            for name, pid in self.pids.items():
                if ended and ended.si_pid == pid:
                    return name
            if ended:
                os.waitpid(ended.si_pid, 0)


@contextmanager
def embedded(
    settings: Settings,
    *,
    pools: Sequence[str] | None = None,
    flower: bool = False,
    scheduler: bool = False,
    data_dir: Path | None = None,
    wanted: Wanted | None = None,
) -> Iterator[Embedded]:
    """Run the named pools (None: all; empty: none) and what they need; yield when all of it is ready.

    Without `data_dir` nothing is kept; with it, what was not done is done after the next start, at the same
    addresses unless others are `wanted`. Call it on a thread that outlives the block: children are tied to
    the thread that started them. Raises `StartError`.
    """
    chosen = list(settings.table.pools) if pools is None else list(pools)
    for name in chosen:
        if name not in settings.table.pools:
            raise SettingsError(unknown("pool", name, settings.table.pools))
    with ExitStack() as stack:
        folder = stack.enter_context(claimed(data_dir))
        parts, pids = _Parts(stack, folder), dict[str, int]()
        addresses = Addresses(folder.path, wanted or Wanted())
        flower_port = addresses.flower() if flower else 0
        if settings.broker_url is None:
            port, password = addresses.broker()
            data, keep_open = folder.path / "valkey", [folder.lock]
            server = valkey.start(data, keep_open=keep_open, port=port, password=password)
            stack.callback(server.stop)
            settings = settings.model_copy(update={"broker_url": server.url})
            pids["valkey"] = server.process.pid
        page = parts.flower(settings, flower_port) if flower else None
        supervisor = parts.pools(settings, chosen) if chosen else None
        pids |= {part.name: part.process.pid for part in (page, supervisor) if part}
        if supervisor:
            _must_be_ready(supervisor)
        flower_url = page.announced(READY_SECONDS) if page else None
        if scheduler:
            timetable = parts.scheduler(settings)
            pids[timetable.name] = timetable.process.pid
            timetable.announced(READY_SECONDS)
        folder.announce(_where(settings, chosen, flower_url))
        yield Embedded(settings, folder.path, flower_url, pids)


def _where(settings: Settings, pools: Sequence[str], flower_url: str | None) -> LocalInstance:
    queues = dict.fromkeys(queue for name in pools for queue in settings.table.pools[name].queues)
    return LocalInstance(
        broker_url=settings.broker_url or "",
        key_prefix=settings.key_prefix,
        flower_url=flower_url,
        queues=tuple(queues),
        roots=tuple(each if "://" in each else os.path.realpath(each) for each in settings.files.roots),
    )


@dataclass(frozen=True)
class _Parts:
    """Start parts, and see to it that they are stopped in the reverse order."""

    stack: ExitStack
    folder: Folder

    def flower(self, settings: Settings, port: int) -> Part:
        def command(fd: int) -> list[str]:
            return [
                sys.executable,
                "-P",
                "-m",
                "millpond.monitor.flower",
                "--port",
                str(port),
                "--ready-fd",
                str(fd),
            ]

        return self._start("flower", command, settings, _FLOWER_STOP_SECONDS)

    def pools(self, settings: Settings, names: Sequence[str]) -> Part:
        def command(fd: int) -> list[str]:
            return [
                sys.executable,
                "-P",
                "-m",
                "millpond.worker.supervise.supervisor",
                *names,
                "--ready-fd",
                str(fd),
            ]

        # The supervisor keeps to its deadline by itself; the rest is for its own exit.
        stop_seconds = settings.drain_seconds + 2 * STOP_MARGIN_SECONDS
        return self._start("pools", command, settings, stop_seconds)

    def scheduler(self, settings: Settings) -> Part:
        def command(fd: int) -> list[str]:
            return [sys.executable, "-P", "-m", "millpond.producer.scheduler_process", "--ready-fd", str(fd)]

        return self._start("scheduler", command, settings, _SCHEDULER_STOP_SECONDS)

    def _start(self, name: str, command: Callable[[int], list[str]], settings: Settings, stop: float) -> Part:
        part = launch(name, command, env=environment(settings), log=self.folder.path / f"{name}.log")
        self.stack.callback(part.stop, stop)
        return part


def _must_be_ready(supervisor: Part) -> None:
    said = supervisor.announced(READY_SECONDS)
    if said != "ready":
        raise StartError(f"{said}{supervisor.last_words()}")

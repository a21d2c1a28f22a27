"""The embedded set-up: a broker, the pools and Flower as child processes, for the length of a `with` block.

Start: a private Valkey (unless the settings name a broker), then the pools and Flower together, then the
scheduler. The block is entered when all are ready. Stop: in the opposite order; the pools drain, and Valkey
has the remaining tasks on disk. The kernel kills the child processes if this process is killed.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from millpond.tasks.errors import StartError
from millpond.tasks.pools import STOP_MARGIN_SECONDS
from millpond.tasks.process.local_instance import LocalInstance
from millpond.tasks.settings import Settings, child_environment
from millpond.worker.local import valkey
from millpond.worker.local.addresses import Addresses, RequestedAddresses
from millpond.worker.local.data_folder import DataFolder, locked_folder
from millpond.worker.local.service import Service
from millpond.worker.supervise.ready_pipe import start_with_ready_pipe

_MODULES = {
    "flower": "millpond.monitor.flower",
    "pools": "millpond.worker.supervise.supervisor",
    "scheduler": "millpond.producer.scheduler_process",
}
#: The longest time until a service has ended. The pools take as long as their tasks may.
_STOP_SECONDS = {"flower": 5.0, "scheduler": 10.0}


@dataclass(frozen=True)
class Embedded:
    """The running services. A client can use `settings`, which have the URL of their broker.

    `flower_url` is None without Flower. `pids` has the process id of each service by its name.
    """

    settings: Settings = field(repr=False)
    data_dir: Path
    flower_url: str | None
    pids: dict[str, int]

    @property
    def url(self) -> str:
        """The broker's URL with its password."""
        return self.settings.broker_url or ""

    def wait(self) -> str:
        """Wait until a service ends by itself, and return its name. Other child processes are reaped.

        The service itself is not reaped. Raises `KeyboardInterrupt` at Ctrl-C.
        """
        names = {pid: name for name, pid in self.pids.items()}
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            assert ended is not None  # it is None with WNOHANG alone
            if ended.si_pid in names:
                return names[ended.si_pid]
            os.waitpid(ended.si_pid, 0)


@contextmanager
def embedded(
    settings: Settings,
    *,
    pools: Sequence[str] | None = None,
    flower: bool = False,
    scheduler: bool = False,
    data_dir: Path | None = None,
    addresses: RequestedAddresses | None = None,
) -> Iterator[Embedded]:
    """Run a broker and `pools` (default: all), and yield when all services are ready.

    Without `data_dir` nothing is kept. With it, remaining tasks run after the next start, and the addresses
    stay the same unless others are requested. Call this on a thread that outlives the block: the children are
    killed when the thread that started them ends. Raises `StartError` and `SettingsError`.
    """
    names = list(settings.table.pools) if pools is None else list(pools)
    for name in names:
        settings.table.pool(name)
    with ExitStack() as stack:
        folder = stack.enter_context(locked_folder(data_dir))
        services, pids = _Services(stack, folder), dict[str, int]()
        chosen = Addresses(folder.path, addresses or RequestedAddresses())
        flower_port = chosen.choose_flower_port() if flower else 0
        if settings.broker_url is None:
            server = services.start_valkey(*chosen.choose_broker_address())
            settings = settings.model_copy(update={"broker_url": server.url})
            pids["valkey"] = server.process.pid
        flower_service = services.start("flower", settings, "--port", str(flower_port)) if flower else None
        supervisor = services.start("pools", settings, *names) if names else None
        pids |= {service.name: service.process.pid for service in (flower_service, supervisor) if service}
        if supervisor:
            _require_ready(supervisor)
        flower_url = flower_service.wait_until_ready() if flower_service else None
        if scheduler:
            scheduler_service = services.start("scheduler", settings)
            pids[scheduler_service.name] = scheduler_service.process.pid
            scheduler_service.wait_until_ready()
        folder.write_addresses(_describe_instance(settings, names, flower_url))
        yield Embedded(settings, folder.path, flower_url, pids)


def _describe_instance(settings: Settings, pools: Sequence[str], flower_url: str | None) -> LocalInstance:
    """Return the addresses, queues and file roots that other commands of this user read."""
    queues = dict.fromkeys(queue for name in pools for queue in settings.table.pools[name].queues)
    return LocalInstance(
        broker_url=settings.broker_url or "",
        key_prefix=settings.key_prefix,
        flower_url=flower_url,
        queues=tuple(queues),
        roots=tuple(root if "://" in root else os.path.realpath(root) for root in settings.files.roots),
    )


@dataclass(frozen=True)
class _Services:
    """Starts the services. The stack stops them in the opposite order."""

    stack: ExitStack
    folder: DataFolder

    def start_valkey(self, port: int, password: str) -> valkey.Server:
        """Start the server.

        It inherits the folder's lock, so the folder is locked until the server has ended.
        """
        data, keep_open = self.folder.path / "valkey", [self.folder.lock]
        server = valkey.start_server(data, keep_open=keep_open, port=port, password=password)
        self.stack.callback(server.stop)
        return server

    def start(self, name: str, settings: Settings, *arguments: str) -> Service:
        """Start a service as `python -m` with these arguments.

        The service is terminated with the set-up, and killed if it does not end in time.
        """

        def command(ready_fd: int) -> list[str]:
            return [sys.executable, "-P", "-m", _MODULES[name], *arguments, "--ready-fd", str(ready_fd)]

        log = self.folder.path / f"{name}.log"
        with log.open("wb") as output:
            process, ready_pipe = start_with_ready_pipe(
                command, env=child_environment(settings), stdout=output, stderr=subprocess.STDOUT
            )
        service = Service(name, process, log, ready_pipe)
        # The supervisor of the pools has a deadline of its own. The second margin is for its exit.
        stop_seconds = _STOP_SECONDS.get(name, settings.drain_seconds + 2 * STOP_MARGIN_SECONDS)
        self.stack.callback(service.stop, stop_seconds)
        return service


def _require_ready(supervisor: Service) -> None:
    """Wait until the pools are ready. Raises `StartError` with the last line of the log if they fail."""
    line = supervisor.wait_until_ready()
    if line != "ready":
        raise StartError(f"{line}{supervisor.last_log_line()}")

"""All the processes of a deployment, for the drills.

They are a server on a disk of its own, two worker processes under their supervisor, two schedulers, Flower,
and Prometheus with the shipped alerts.
"""

import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

from millpond.broker.connection import Store, connect
from millpond.producer.client import Client
from millpond.tasks.settings import Settings, child_environment
from millpond.worker.local.valkey import embedded_binary
from tests.harness.flower_process import LOGIN, Visitor, run_flower_process
from tests.harness.own_server import OwnServer, free_port, run_own_server
from tests.scenarios.drills.disk import Disk, disk
from tests.scenarios.drills.prometheus import prometheus

QUESTIONS = ("live", "ready", "working")
PROMETHEUS_LOGIN = "prometheus:asks-often"

SLOTS, BOUND = 4, 40
TABLE = {
    "pools": {
        "default": {"processes": 2, "concurrency": SLOTS // 2, "prefetch": 0, "queues": ["default", "ticks"]}
    },
    "queues": {
        "default": {
            "bound": BOUND,
            "overflow": "reject",
            "max_deliveries": 3,
            "lease_seconds": 6,
            "soft_limit_seconds": 5,
            "hard_limit_seconds": 5,
        },
        "ticks": {"lease_seconds": 6, "soft_limit_seconds": 5, "hard_limit_seconds": 5},
    },
}
TICK = {"kind": "squares.square", "fields": {"n": 2}, "every": "2s", "queue": "ticks"}


@dataclass
class World:
    """The running processes, and what an operator can ask them. `scale` divides durations of alerts."""

    settings: Settings
    folder: Path
    disk: Disk
    server: OwnServer
    supervisor: "subprocess.Popen[bytes]"
    schedulers: "list[subprocess.Popen[bytes]]"
    visitor: Visitor
    prometheus: str
    stack: ExitStack
    scale: float

    @property
    def client(self) -> Client:
        """A new client."""
        return Client(settings=self.settings)

    @property
    def store(self) -> Store:
        """A new store."""
        return connect(self.server.url)

    def workers(self) -> list[int]:
        """Return the process ids of the worker processes that Flower shows."""
        told = json.loads(self.visitor.get("/api/millpond/pools").text)
        [pool] = [pool for pool in told if pool["pool"] == "default"]
        return [process["pid"] for process in pool["running"]]

    def health(self) -> dict[str, list[str]]:
        """Return the failed health checks of the supervisor, each with its faults."""
        answers = {question: self._asked(question) for question in QUESTIONS}
        return {question: faults for question, faults in answers.items() if faults}

    def scheduler_health(self, pid: int) -> dict[str, list[str]]:
        """Return the health checks of one scheduler that fail, by `millpond health`, with their faults."""
        argv = [sys.executable, "-m", "millpond", "health", "scheduler", "--pid", str(pid), "--json"]
        done = subprocess.run(
            argv,
            env=child_environment(self.settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        told = json.loads(done.stdout)
        return {question: told["faults"] for question in QUESTIONS if not told[question]}

    def page(self, path: str) -> str:
        """Return the text of a page of Flower, in one line."""
        text = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", self.visitor.get(path).text, flags=re.DOTALL)
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).split())

    def add_scheduler(self) -> None:
        """Start one more scheduler."""
        self.schedulers.append(_run(self.settings, self.folder, self.stack, "scheduler"))

    def _asked(self, question: str) -> list[str]:
        url = f"http://127.0.0.1:{self.settings.health_port}/{question}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                return list(json.load(answer)["faults"])
        except urllib.error.HTTPError as refused:
            with refused:
                return list(json.load(refused)["faults"])
        except OSError as error:
            return [f"the page does not answer: {error}"]


@contextmanager
def world(folder: Path, *, scale: float, program: str) -> Iterator[World]:
    """Run the processes for the length of a block; `program` is Prometheus. Raises `NoDisk`."""
    os.environ["MILLPOND_SCRATCH"] = str(folder)
    with ExitStack() as stack:
        own = stack.enter_context(disk(folder / "disk"))
        lines = [f"dir {own.folder}", "appendonly yes", "appendfsync everysec"]
        server = OwnServer(own.program(embedded_binary()), folder / "server", lines)
        stack.enter_context(run_own_server(server))
        settings = Settings(
            broker_url=server.url,
            kinds=("broker_kinds",),
            table=TABLE,
            schedule={"tick": TICK},
            health_port=free_port(),
            drain_seconds=5,
            broker_timeout_seconds=2,
            flower_basic_auth=(LOGIN, PROMETHEUS_LOGIN),
        )
        supervisor = _run(settings, folder, stack, "worker", "default")
        schedulers = [_run(settings, folder, stack, "scheduler") for _ in range(2)]
        page, _ = stack.enter_context(run_flower_process(settings))
        watching = prometheus(
            program, folder / "prometheus", flower=page, login=PROMETHEUS_LOGIN, scale=scale
        )
        url = stack.enter_context(watching)
        yield World(settings, folder, own, server, supervisor, schedulers, Visitor(page), url, stack, scale)


def _run(settings: Settings, folder: Path, stack: ExitStack, *words: str) -> "subprocess.Popen[bytes]":
    with (folder / f"{words[0]}.log").open("ab") as log:
        argv = [sys.executable, "-m", "millpond", *words]
        process = subprocess.Popen(argv, env=child_environment(settings), stdout=log, stderr=log)
    stack.callback(_end, process)
    return process


def _end(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

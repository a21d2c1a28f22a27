"""Run Flower for a broker, and send requests as a browser does: with cookies, form tokens and redirects."""

import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

from millpond.broker import limits
from millpond.broker.connection import Store
from millpond.broker.outcomes import DeadLetter
from millpond.broker.outgoing import compose
from millpond.broker.publish import publish
from millpond.broker.server import server_time_ms
from millpond.tasks.settings import Settings, child_environment
from tests.harness.manual_consumer import ManualConsumer

COMMAND = [sys.executable, "-c", "import sys, millpond; sys.exit(millpond.main())", "flower"]
LOGIN = "ann:secret"
PREFIX = "pages:"


@dataclass
class Answer:
    """A response of Flower."""

    status: int
    headers: Mapping[str, str]
    text: str


@dataclass
class Visitor:
    """A browser of a user who is logged in by HTTP Basic, or with `login=None` is not."""

    url: str
    login: str | None = LOGIN
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Answer:
        """Load a page. `headers` are further headers, with `_` for `-` in their names."""
        return self._ask("GET", path, None, headers)

    def post(self, path: str, form: list[tuple[str, str]], *, token: bool = True, **headers: str) -> Answer:
        """Send a form, and follow a redirect. Without `token` the form lacks the token of the pages."""
        if token:
            self.get("/queues")
            form = [*form, ("_xsrf", self.cookies["_xsrf"])]
        answer = self._ask("POST", path, urlencode(form), headers)
        return self.get(answer.headers["Location"]) if answer.status == 303 else answer

    def _ask(self, method: str, path: str, body: str | None, more: Mapping[str, str]) -> Answer:
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if self.login:
            headers["Authorization"] = f"Basic {b64encode(self.login.encode()).decode()}"
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = HTTPConnection(urlsplit(self.url).netloc, timeout=20)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            for cookie in answer.headers.get_all("Set-Cookie") or ():
                name, _, rest = cookie.partition("=")
                self.cookies[name] = rest.partition(";")[0]
            return Answer(answer.status, dict(answer.headers), answer.read().decode(errors="replace"))
        finally:
            connection.close()


def filled_path(pattern: str) -> str:
    """Return a path that a route's pattern matches."""
    return re.sub(r"\([^)]*\)", "1-0", re.sub(r"\((\w+)\|[^)]*\)", r"\1", pattern))


@contextmanager
def run_flower(broker_url: str, **more: Any) -> Iterator[str]:
    """Run `millpond flower` on a free port, and yield its URL. `more` are further settings."""
    with run_flower_process(Settings(**{"broker_url": broker_url, "key_prefix": PREFIX, **more})) as (url, _):
        yield url


@contextmanager
def run_flower_process(
    chosen: Settings, *words: str, port: int = 0
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run `millpond flower`, and yield its URL and its process, which is killed at the end.

    `words` are further arguments of the command.
    """
    running = subprocess.Popen(
        [*COMMAND, "--port", str(port), *words],
        env={**child_environment(chosen), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert running.stdout is not None
        found = re.search(r"http://\S+:\d+", running.stdout.readline())
        assert found, "Flower did not say where it is"
        yield found[0], running
    finally:
        running.kill()
        running.communicate()


def send_tasks(store: Store, queue: str, count: int, *, kind: str = "squares.square") -> None:
    """Send so many tasks of a kind to a queue, whatever its bound."""
    limits.declare_limits(store, queue, {}, authoritative=False)
    messages = [compose(kind, {"n": n}, queue=queue, sent_at_ms=server_time_ms(store)) for n in range(count)]
    publish(store, messages, policy="exempt")


def make_dead_letter(
    store: Store, queue: str, reason: str, error: str, *, kind: str, kwargs: Mapping[str, Any]
) -> str:
    """Send a task, fetch it and settle it as a dead letter, as a worker would; return the task's id."""
    limits.declare_limits(store, queue, {}, authoritative=False)
    message = compose(kind, kwargs, queue=queue, sent_at_ms=server_time_ms(store))
    publish(store, [message], policy="exempt")
    consumer = ManualConsumer(store, queue)
    consumer.fetch()
    consumer.settle(DeadLetter(reason, error, {"traceback": f"Traceback\n  {error}"}))
    return message.id

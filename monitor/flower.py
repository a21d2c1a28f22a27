"""Serve Flower with Millpond's pages.

Flower shows every task, and its users may revoke tasks and stop workers. So it listens on loopback unless
there is a login. Secrets and mail bodies are redacted in the worker (`worker/celery/strategy.py`).
Nothing is stored on disk. The pages of pools, queues, dead letters, batches and schedules (`monitor/pages/`)
read Redis, not events. Metrics are at /metrics, liveness at /healthcheck.
"""

import logging
import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any

from millpond.broker.cluster import check_cluster_at_start
from millpond.broker.connection import connect
from millpond.broker.stats.history import HistoryCache
from millpond.broker.url import BrokerURL
from millpond.tasks.app import celery_app
from millpond.tasks.errors import MillpondError, SettingsError, StartError
from millpond.tasks.process.configured_broker import require_broker_url
from millpond.tasks.process.logs import log_to_stderr
from millpond.tasks.process.loopback import is_loopback
from millpond.tasks.settings import Settings, settings

#: Settings of Flower that are paths, and begin with the sub-path of a proxy.
PREFIXED_PATHS = ("login_url", "static_url_prefix")

#: The columns of the page of tasks.
TASK_COLUMNS = "name,uuid,state,kwargs,result,received,started,runtime,worker"


def serve(
    settings: Settings,
    *,
    address: str = "127.0.0.1",
    port: int = 5555,
    basic_auth: Sequence[str] = (),
    url_prefix: str | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve Flower until SIGTERM or SIGINT. `on_ready` is called with its URL. Port 0 takes a free port.

    `basic_auth` adds user:password pairs to those of the settings. `url_prefix` replaces the settings'
    sub-path of a proxy. Raises `SettingsError`, `BadBrokerUrl`, and `StartError` if it cannot listen.
    """
    logins = [*basic_auth, *(login.get_secret_value() for login in settings.flower_basic_auth)]
    require_login_beyond_loopback(address, logins)
    if not settings.broker_url:
        raise SettingsError("Flower has no broker to watch: set MILLPOND_BROKER_URL, or use millpond up")
    prefix = (settings.flower_url_prefix if url_prefix is None else url_prefix).strip("/")
    check_cluster_at_start(settings.broker_url, **settings.broker_options)
    from millpond.monitor.pages import history_sampling
    from millpond.monitor.pages.guard import path_prefix

    flower = _make_flower(settings, address, port, logins, prefix)
    history_sampling.start_sampling(flower)
    try:
        bound_port = flower.start_http_server()
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"Flower cannot listen on {address}:{port}: {reason}. Try another --port, or --port 0 for any"
        ) from None
    for number in (signal.SIGTERM, signal.SIGINT):
        flower.io_loop.asyncio_loop.add_signal_handler(number, flower.stop)
    url = f"http://{_bracket_ipv6(address)}:{bound_port}{path_prefix(prefix)}/"
    flower.io_loop.add_callback(on_ready, url)
    flower.start()


def require_login_beyond_loopback(address: str, logins: Sequence[str]) -> None:
    """Raise `SettingsError` for a malformed login, and for a public address without any login."""
    for login in logins:
        user, _, password = login.partition(":")
        if not user or not password:
            raise SettingsError(
                "a login of Flower is not of the form user:password: correct --basic-auth or the setting "
                "flower_basic_auth (MILLPOND_FLOWER_BASIC_AUTH)"
            )
    if not logins and not is_loopback(address):
        raise SettingsError(
            f"Flower does not listen on {address or 'every address'} without a login: "
            "add --basic-auth user:password, or leave out --address"
        )


def _make_flower(settings: Settings, address: str, port: int, logins: list[str], prefix: str) -> Any:
    """Return Flower's application with Millpond's pages, guard and store."""
    from flower.options import default_options
    from flower.urls import settings as tornado_settings
    from tornado.ioloop import IOLoop

    from millpond.monitor.flower_events import BufferedEvents
    from millpond.monitor.pages import routes
    from millpond.monitor.pages.guard import GuardedFlower, path_prefix
    from millpond.monitor.pages.template_loader import PageLoader

    broker = require_broker_url(settings)

    class MillpondFlower(GuardedFlower):
        """Flower with a store of Millpond's beside its own connections."""

        broker_uri = broker_uri_with_password = str(BrokerURL.parse(broker))
        store = connect(broker, **settings.broker_options)
        history = HistoryCache(store)
        pools_table = settings.table

    _set_options(default_options, settings, address, port, logins, prefix)
    app = celery_app(settings)
    events = BufferedEvents(
        app,
        IOLoop.instance(),
        max_workers_in_memory=default_options.max_workers,
        max_tasks_in_memory=default_options.max_tasks,
    )
    paths = {name: path_prefix(prefix) + tornado_settings[name] for name in PREFIXED_PATHS}
    flower = MillpondFlower(
        options=default_options,
        capp=app,
        events=events,
        template_loader=PageLoader(tornado_settings["template_path"]),
        **{**tornado_settings, **paths},
    )
    routes.add_routes(flower)
    return flower


def _set_options(
    options: Any, settings: Settings, address: str, port: int, logins: list[str], prefix: str
) -> None:
    """Set the options of Flower that its own command line would read."""
    from millpond.monitor.pages.guard import ascii_login

    options.address = address
    options.port = port
    options.basic_auth = [ascii_login(login) for login in logins]
    options.url_prefix = prefix
    options.persistent = False
    options.max_tasks = settings.flower_max_tasks
    options.tasks_columns = TASK_COLUMNS
    options.read_only = settings.flower_read_only


def _bracket_ipv6(address: str) -> str:
    """Return an address in the form of a URL's host: an IPv6 address in brackets."""
    return f"[{address}]" if ":" in address else address


def main(argv: Sequence[str] | None = None) -> None:
    """Serve Flower as a child process. Once it listens, write its URL to the descriptor `--ready-fd`."""
    parser = ArgumentParser(prog="millpond.monitor.flower")
    parser.add_argument("--port", type=int, default=5555)
    parser.add_argument("--ready-fd", type=int, required=True)
    options = parser.parse_args(argv)
    logging.getLogger("tornado.access").setLevel(logging.WARNING)

    def announce(url: str) -> None:
        os.write(options.ready_fd, f"{url}\n".encode())
        os.close(options.ready_fd)

    try:
        log_to_stderr(settings().log_format)
        serve(settings(), port=options.port, on_ready=announce)
    except MillpondError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

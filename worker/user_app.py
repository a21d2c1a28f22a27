"""A Celery application of the user's own: its tasks, settings and signals, under Millpond's consumer.

`millpond worker --app proj POOL` imports the application as `celery -A proj` does. Millpond changes only the
settings that its promises need, and names each change as a worker starts. Everything else stays the
application's own. Kinds of Millpond's own run beside its tasks.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from celery import Celery
from celery.app.defaults import DEFAULTS
from kombu import Queue
from kombu.serialization import prepare_accept_content

from millpond.broker import message_body
from millpond.broker.keys import PRIORITY_STEPS, SEPARATOR
from millpond.broker.url import BrokerURL
from millpond.tasks import celery_application
from millpond.tasks.app import TRANSPORT, transport_options
from millpond.tasks.settings import Settings
from millpond.tasks.toml_names import table_header

#: The values of Celery's settings that Millpond's promises need, each with the reason.
REQUIRED_SETTINGS: dict[str, tuple[Any, str]] = {
    "task_acks_late": (True, "a task is settled after its run, so that a killed worker loses none"),
    "task_acks_on_failure_or_timeout": (True, "a failed task becomes a dead letter"),
    "task_acks_on_failure": (None, "a failed task becomes a dead letter"),
    "task_acks_on_timeout": (None, "a task that its time limit ended becomes a dead letter"),
    "task_reject_on_worker_lost": (True, "a task whose process was killed runs again"),
    "worker_prefetch_multiplier": (
        1,
        "set `prefetch` of the pool: the messages that a process fetches ahead",
    ),
    "worker_disable_prefetch": (False, "set `prefetch` of the pool: with 0 it fetches for free slots alone"),
    "worker_enable_prefetch_count_reduction": (False, "leases bound what a process has in flight"),
    "worker_cancel_long_running_tasks_on_connection_loss": (False, "a lease outlives a lost connection"),
    "broker_connection_max_retries": (None, "a worker waits for its broker for as long as it takes"),
    "broker_connection_retry_on_startup": (True, "a worker waits for its broker for as long as it takes"),
}

#: Variables that name a broker to Celery.
BROKER_VARIABLES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")

#: The transport options of the application that have no effect, each with what has one in its place.
REPLACED_OPTIONS = {
    "visibility_timeout": "leases take its place",
    "ack_emulation": "leases take its place",
    "unacked_key": "leases take its place",
    "unacked_index_key": "leases take its place",
    "unacked_mutex_key": "leases take its place",
    "unacked_mutex_expire": "leases take its place",
    "unacked_restore_limit": "leases take its place",
    "unacked_restore_interval": "leases take its place",
    "unacked_restore_throttle": "leases take its place",
    "global_keyprefix": "set MILLPOND_KEY_PREFIX",
    "socket_timeout": "set MILLPOND_BROKER_TIMEOUT_SECONDS",
    "socket_connect_timeout": "set MILLPOND_BROKER_TIMEOUT_SECONDS",
    "lease_seconds": "set `lease_seconds` of the queue, in the pools table",
    "lease_terms_ms": "set `lease_seconds` of the queue, in the pools table",
    "queues": "set the limits of queues in the pools table",
    "send_copies": "set MILLPOND_SEND_COPIES",
}

#: The other settings of the application that have no effect, likewise.
IGNORED_SETTINGS = {
    "worker_concurrency": "set `concurrency` of the pool",
    "worker_autoscaler": "a pool has a fixed number of slots: scale processes or containers",
    "worker_pool": "set `executor` of the pool: prefork or threads",
    "worker_consumer": "Millpond's consumer settles and drains",
    "worker_soft_shutdown_timeout": "`drain_seconds` is how long running tasks may take to end",
    "worker_enable_soft_shutdown_on_idle": "a task that waits for its time waits in the broker",
    "worker_state_db": "the broker remembers what `millpond task cancel` cancels",
}

_THREADS_REASON = 'a thread cannot be killed: give the pool executor = "prefork"'
_RATE_LIMIT_REASON = "it holds for each process: `rate` of the queue holds for the whole fleet"


@dataclass(frozen=True)
class SettingChange:
    """A setting of the application that Millpond replaces or cannot honour.

    `theirs` is the application's value, `ours` the value in effect ("-": none). `why` is the reason, or what
    to do.
    """

    setting: str
    theirs: Any
    ours: Any
    why: str


def load_app(app_name: str) -> Celery:
    """Import and return the application that `celery -A` names so. Raises `SettingsError`."""
    with _millpond_defaults() as stock_defaults:
        app = celery_application.load_app(app_name)
        try:
            _ = app.conf.task_acks_late  # the first read loads the settings, in whichever form they are
        except Exception as error:
            raise celery_application.application_error(app_name, error) from error
        if app.conf.defaults:
            app.conf.defaults[-1].update(stock_defaults)  # it may have copied the changed defaults
        return app


def import_task_modules(app: Celery, app_name: str) -> None:
    """Import the modules that an application includes or discovers, as Celery's worker does as it is made.

    Raises `SettingsError` for a module that cannot be imported: another start would end alike.
    """
    try:
        app.loader.init_worker()
    except Exception as error:
        raise celery_application.application_error(app_name, error) from error


@contextmanager
def _millpond_defaults() -> Iterator[dict[str, Any]]:
    """Make `REQUIRED_SETTINGS` Celery's defaults inside a `with` block, and yield the stock defaults.

    An application is imported in the block. A task that is bound during the import (`app.register_task`,
    `app.tasks`) copies `acks_late` and other settings, and keeps them. A task with its own `acks_late=False`
    keeps that too.
    """
    stock_defaults = {name: DEFAULTS[name] for name in REQUIRED_SETTINGS}
    DEFAULTS.update({name: ours for name, (ours, _why) in REQUIRED_SETTINGS.items()})
    try:
        yield stock_defaults
    finally:
        DEFAULTS.update(stock_defaults)


def configure_app(app: Celery, settings: Settings, pools: tuple[str, ...] = ()) -> list[SettingChange]:
    """Apply the settings of Millpond to an application whose workers serve these pools.

    Return the changed settings, and those that have no effect. A replaced default of Celery's is among them
    only if it concerns how tasks are settled (`task_…`). Removes Celery's broker variables from the
    environment.
    """
    url = BrokerURL.parse(str(settings.broker_url))
    changes = list(_broker_changes(app, url))
    for name, (ours, why) in REQUIRED_SETTINGS.items():
        theirs = app.conf[name]
        if theirs != ours:
            app.conf[name] = ours
            if name.startswith("task_") or theirs != DEFAULTS[name]:
                changes.append(SettingChange(name, theirs, ours, why))
    for variable in BROKER_VARIABLES:  # Celery would prefer them to the broker that is set below
        os.environ.pop(variable, None)
    app.amqp_cls = "millpond.tasks.app:MillpondAMQP"
    app.__dict__.pop("amqp", None)
    app.conf.broker_url = app.conf.broker_read_url = app.conf.broker_write_url = url.without_login
    app.conf.broker_transport, app.conf.broker_use_ssl = TRANSPORT, None
    theirs, ours = app.conf.broker_transport_options or {}, transport_options(settings)
    changes += [
        SettingChange(
            f"broker_transport_options[{name!r}]", value, ours.get(name, "-"), REPLACED_OPTIONS[name]
        )
        for name, value in theirs.items()
        if name in REPLACED_OPTIONS and value != ours.get(name)
    ]
    changes += _priority_changes(theirs)
    unchanged = {name: value for name, value in theirs.items() if name not in REPLACED_OPTIONS}
    app.conf.broker_transport_options = {**ours, **unchanged, "url": url}
    message_body.accept_content(prepare_accept_content(app.conf.accept_content))
    return [*changes, *_ineffective_settings(app, settings, pools)]


def _priority_changes(options: Mapping[str, Any]) -> Iterator[SettingChange]:
    """Yield the transport options by which stock clients write to other ready lists than those served."""
    why = "four lists are served: a message in another list of a stock client starts up to a second later"
    steps, separator = options.get("priority_steps", PRIORITY_STEPS), options.get("sep", SEPARATOR)
    if not set(steps) <= set(PRIORITY_STEPS):
        yield SettingChange("broker_transport_options['priority_steps']", steps, [*PRIORITY_STEPS], why)
    if separator != SEPARATOR:
        yield SettingChange("broker_transport_options['sep']", repr(separator), repr(SEPARATOR), why)


def _broker_changes(app: Celery, url: BrokerURL) -> Iterator[SettingChange]:
    """Yield each broker URL of the application other than `url`, and TLS that `url` does not have."""
    for name in ("broker_write_url", "broker_read_url"):
        own_url = getattr(app.conf, name)
        theirs = celery_application.parse_broker_url(celery_application.add_tls_options(app, own_url))
        if own_url and (theirs is None or theirs.without_login != url.without_login):
            why = "all messages have one broker: MILLPOND_BROKER_URL, or else broker_write_url"
            yield SettingChange(name, theirs or "-", url, why)
    if app.conf.broker_use_ssl and url.tls is None:
        why = "write rediss:// and its ssl_… options in the broker's URL"
        yield SettingChange("broker_use_ssl", "set", "-", why)


def _ineffective_settings(app: Celery, settings: Settings, pools: tuple[str, ...]) -> Iterator[SettingChange]:
    """Yield the settings that have no effect, or another effect than on stock, and queues without a pool."""
    conf, table = app.conf, settings.table
    if table.are_threads(pools):
        for name in ("task_time_limit", "task_soft_time_limit"):
            if conf[name]:
                yield SettingChange(name, conf[name], "-", _THREADS_REASON)
    for name, why in IGNORED_SETTINGS.items():
        if conf[name] and conf[name] != DEFAULTS.get(name):
            yield SettingChange(name, conf[name], "-", why)
    if conf.task_default_rate_limit:
        yield SettingChange("task_default_rate_limit", conf.task_default_rate_limit, "-", _RATE_LIMIT_REASON)
    served = {queue for pool in table.pools.values() for queue in pool.queues}
    for queue in sorted({conf.task_default_queue, *_queue_names(conf.task_queues or ())} - served):
        missing = "" if queue in table.queues else f", and add a {table_header('queues', queue)} table"
        why = f'no pool serves it: set queues = ["{queue}"] in the [pools.NAME] of its workers{missing}'
        yield SettingChange(f"queue {queue}", "-", "-", why)


def _queue_names(queues: Mapping[str, Any] | Iterable[Queue]) -> Iterator[str]:
    """Yield the names by which a worker is told to take from the queues of an application's `task_queues`.

    A `Broadcast` has an alias, and a queue of another random name in each process.
    """
    for queue in queues:
        if isinstance(queue, str):  # a mapping of names to queues, or to their options
            yield queue
        else:
            yield queue.alias or queue.name


def check_result_backend(app: Celery) -> None:
    """Print an error and exit with `EX_CONFIG` if the application's result backend cannot be created."""
    try:
        _ = app.backend
    except Exception as error:
        text = " ".join(str(error).split())
        print(f"millpond: result_backend cannot be used: {type(error).__name__}: {text}", file=sys.stderr)
        sys.exit(os.EX_CONFIG)


def unsafe_task_options(app: Celery) -> Iterator[SettingChange]:
    """Yield the options of tasks because of which a promise of Millpond does not hold for these tasks.

    Call this once every task is registered. OpenTelemetry's instrumentor of Celery is yielded too.
    """
    instrumentation = sys.modules.get("opentelemetry.instrumentation.celery")
    if instrumentation is not None and instrumentation.CeleryInstrumentor().is_instrumented_by_opentelemetry:
        why = "each run has a span of Millpond's too: leave the instrumentor to programs that send"
        yield SettingChange("CeleryInstrumentor", "on", "on", why)
    for name, task in sorted(app.tasks.items()):
        if name.startswith("celery."):
            continue
        if not task.acks_late:
            yield SettingChange(
                f"acks_late of {name}", False, False, "a killed worker loses it, and it has no dead letter"
            )
        flush_every, in_flight = getattr(task, "flush_every", 0), getattr(app, "in_flight", None)
        if in_flight is not None and isinstance(flush_every, int) and flush_every > in_flight.prefetch:
            why = f"celery-batches collects what a process holds: give its pool prefetch = {flush_every}"
            yield SettingChange(f"flush_every of {name}", flush_every, f"prefetch {in_flight.prefetch}", why)
        if task.rate_limit:
            yield SettingChange(f"rate_limit of {name}", task.rate_limit, task.rate_limit, _RATE_LIMIT_REASON)


def limits_not_kept(app: Celery) -> Iterator[SettingChange]:
    """Yield the time limits of the application's own tasks, which a pool of threads does not keep."""
    for name, task in sorted(app.tasks.items()):
        if not hasattr(task, "handler"):  # the limits of a handler are those of its queue
            for limit in ("time_limit", "soft_time_limit"):
                if value := getattr(task, limit):
                    yield SettingChange(f"{limit} of {name}", value, "-", _THREADS_REASON)


def format_changes(changes: list[SettingChange]) -> str:
    """Return the changes as lines for the log of a starting worker, or "" if there are none."""
    if not changes:
        return ""
    rows = [
        (change.setting, _shorten_value(change.theirs), _shorten_value(change.ours), change.why)
        for change in changes
    ]
    width, width_theirs, width_ours = (max(len(row[column]) for row in rows) for column in range(3))
    lines = [
        f"  {setting:{width}}  {theirs:>{width_theirs}} -> {ours:{width_ours}}  {why}"
        for setting, theirs, ours, why in rows
    ]
    return "\n".join(["Settings of the application that Millpond replaces or cannot honour:", *lines])


def _shorten_value(value: Any) -> str:
    """Return the text of a value, shortened to 24 characters with `…` at its end."""
    text = str(value)
    return text if len(text) <= 24 else f"{text[:23]}…"

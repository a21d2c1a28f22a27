"""A Celery application of the user's own: its tasks, settings and signals, under Millpond's consumer.

`millpond worker --app proj POOL` imports the application as `celery -A proj` does. Millpond changes only the
settings that its promises need, and names each change as a worker starts. Everything else stays the
application's own. Kinds of Millpond's own run beside its tasks.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.defaults import DEFAULTS
from kombu.serialization import prepare_accept_content

from millpond.broker import message_body
from millpond.broker.url import BrokerURL
from millpond.tasks import celery_application
from millpond.tasks.app import TRANSPORT, transport_options
from millpond.tasks.errors import SettingsError
from millpond.tasks.settings import Settings

#: Settings that Millpond's promises need, and why.
NEEDED: dict[str, tuple[Any, str]] = {
    "task_acks_late": (True, "a task is settled after its run, so that a killed worker loses none"),
    "task_acks_on_failure_or_timeout": (True, "a failed task becomes a dead letter"),
    "task_acks_on_failure": (None, "a failed task becomes a dead letter"),
    "task_acks_on_timeout": (None, "a task that its time limit ended becomes a dead letter"),
    "task_reject_on_worker_lost": (True, "a task whose process was killed runs again"),
    "worker_prefetch_multiplier": (1, "the pool's `prefetch` says how many messages a process fetches ahead"),
    "worker_disable_prefetch": (False, "the pool's `prefetch` says it: 0 fetches for free slots alone"),
    "worker_enable_prefetch_count_reduction": (False, "leases bound what a process has in flight"),
    "worker_cancel_long_running_tasks_on_connection_loss": (False, "a lease outlives a lost connection"),
    "broker_connection_max_retries": (None, "a worker waits for its broker for as long as it takes"),
    "broker_connection_retry_on_startup": (True, "a worker waits for its broker for as long as it takes"),
}

#: Variables that name a broker to Celery.
OF_THE_ENVIRONMENT = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")

#: Options of kombu's Redis transport that have no effect on ours.
WITHOUT_EFFECT = (
    "visibility_timeout",
    "ack_emulation",
    "unacked_key",
    "unacked_index_key",
    "unacked_mutex_key",
    "unacked_mutex_expire",
    "unacked_restore_limit",
    "unacked_restore_interval",
    "unacked_restore_throttle",
)
#: The settings of Millpond that replace a transport option.
INSTEAD = {
    "global_keyprefix": "MILLPOND_KEY_PREFIX says it",
    "socket_timeout": "MILLPOND_BROKER_TIMEOUT_SECONDS says it",
    "socket_connect_timeout": "MILLPOND_BROKER_TIMEOUT_SECONDS says it",
    "lease_seconds": "`lease_seconds` of the queue, in the pools table",
    "lease_terms_ms": "`lease_seconds` of the queue, in the pools table",
    "queues": "the pools table says the limits of its queues",
    "send_copies": "MILLPOND_SEND_COPIES says it",
}


@dataclass(frozen=True)
class SettingChange:
    """A setting of the application that Millpond replaces or cannot honour."""

    setting: str
    theirs: Any
    ours: Any
    why: str


def load_app(name: str) -> Celery:
    """Return the application that a name means, as `celery -A` reads it. Raises `SettingsError`."""
    with _millpond_defaults() as stock:
        app = celery_application.load_app(name)
        try:
            _ = app.conf.task_acks_late  # reads its settings, in any form
        except Exception as error:
            raise celery_application.load_error(name, error) from error
        if app.conf.defaults:
            app.conf.defaults[-1].update(stock)  # it may have taken its own copy
        return app


@contextmanager
def _millpond_defaults() -> Iterator[dict[str, Any]]:
    """Make the settings that Millpond needs Celery's defaults while an application is imported.

    A task that is bound as its module is imported (`app.register_task`, `app.tasks`) takes `acks_late` and
    the like from the settings then, and keeps it. A task that says `acks_late=False` itself keeps that too.
    """
    stock = {name: DEFAULTS[name] for name in NEEDED}
    DEFAULTS.update({name: ours for name, (ours, _why) in NEEDED.items()})
    try:
        yield stock
    finally:
        DEFAULTS.update(stock)


def configure_app(app: Celery, configured: Settings, pools: tuple[str, ...] = ()) -> list[SettingChange]:
    """Apply the settings of Millpond to an application.

    Return the changes, and the settings that cannot hold.

    Its workers are of these pools. A default of Celery's that changes no task's fate is not named.
    """
    url = BrokerURL.parse(str(configured.broker_url))
    changes = list(_broker_changes(app, url))
    for name, (ours, why) in NEEDED.items():
        theirs = app.conf[name]
        if theirs != ours:
            app.conf[name] = ours
            if name.startswith("task_") or theirs != DEFAULTS[name]:
                changes.append(SettingChange(name, theirs, ours, why))
    for name in OF_THE_ENVIRONMENT:  # Celery would prefer them to the settings here
        os.environ.pop(name, None)
    app.amqp_cls = "millpond.tasks.app:NamedAMQP"
    app.__dict__.pop("amqp", None)
    app.conf.broker_url = app.conf.broker_read_url = app.conf.broker_write_url = url.without_login
    app.conf.broker_transport, app.conf.broker_use_ssl = TRANSPORT, None
    theirs, ours = app.conf.broker_transport_options or {}, transport_options(configured)
    changes += _transport_changes(theirs, ours)
    app.conf.broker_transport_options = {**ours, **_kept_options(theirs), "url": url}
    accepted = prepare_accept_content(app.conf.accept_content)
    message_body.accept_content(accepted)
    return [*changes, *_ineffective_settings(app, configured, pools)]


def _kept_options(theirs: dict[str, Any]) -> dict[str, Any]:
    """Return the transport options of an application that stay as they are."""
    return {name: value for name, value in theirs.items() if name not in INSTEAD}


def _transport_changes(theirs: dict[str, Any], ours: dict[str, Any]) -> Iterator[SettingChange]:
    """Yield the transport options of the application that are replaced or have no effect."""
    for name, value in theirs.items():
        shown = f"broker_transport_options[{name!r}]"
        if name in WITHOUT_EFFECT:
            yield SettingChange(shown, value, "-", "leases take its place")
        elif name in INSTEAD and value != ours.get(name):
            yield SettingChange(shown, value, ours.get(name, "-"), INSTEAD[name])


def _broker_changes(app: Celery, url: BrokerURL) -> Iterator[SettingChange]:
    """Yield each broker of the application that is not the one in use, and TLS that its URL does not have."""
    for name in ("broker_write_url", "broker_read_url"):
        written = getattr(app.conf, name)
        theirs = celery_application.parse_broker_url(celery_application.add_tls_options(app, written))
        if written and (theirs is None or theirs.without_login != url.without_login):
            yield SettingChange(
                name, theirs or "-", url, "MILLPOND_BROKER_URL, or else broker_write_url, says it"
            )
    if app.conf.broker_use_ssl and url.tls is None:
        why = "write rediss:// and its ssl_… options in the broker's URL"
        yield SettingChange("broker_use_ssl", "set", "-", why)


def _ineffective_settings(
    app: Celery, configured: Settings, pools: tuple[str, ...]
) -> Iterator[SettingChange]:
    """Yield the settings that have no effect here, or another than on stock."""
    conf, table = app.conf, configured.table
    if pools and all(table.pools[pool].executor == "threads" for pool in pools):
        for name in ("task_time_limit", "task_soft_time_limit"):
            if conf[name]:
                why = 'a thread cannot be killed: give the pool executor = "prefork"'
                yield SettingChange(name, conf[name], "-", why)
    for name, instead in (
        ("worker_concurrency", "the pools table says it: `concurrency` of the pool"),
        ("worker_autoscaler", "a fixed number of slots: scale processes or containers"),
        ("worker_pool", "the pools table says it: `executor` of the pool, prefork or threads"),
        ("worker_consumer", "Millpond's consumer settles and drains"),
        ("worker_soft_shutdown_timeout", "`drain_seconds` is how long running tasks may take to end"),
        ("worker_enable_soft_shutdown_on_idle", "a task that waits for its time waits in the broker"),
        ("worker_state_db", "the broker remembers what `millpond task cancel` cancels"),
    ):
        if conf[name] and conf[name] != DEFAULTS.get(name):
            yield SettingChange(name, conf[name], "-", instead)
    if conf.task_default_rate_limit:
        yield SettingChange("task_default_rate_limit", conf.task_default_rate_limit, "-", _RATE)
    served = {queue for pool in table.pools.values() for queue in pool.queues}
    named = {conf.task_default_queue, *(queue.name for queue in conf.task_queues or ())}
    for queue in sorted(named - served):
        yield SettingChange(f"queue {queue}", "-", "-", _no_pool_text(queue))


def check_results(app: Celery) -> None:
    """End the process with EX_CONFIG if the application's result backend cannot be made, as stock does."""
    try:
        _ = app.backend
    except Exception as error:
        said = " ".join(str(error).split())
        print(f"millpond: result_backend cannot be used: {type(error).__name__}: {said}", file=sys.stderr)
        sys.exit(os.EX_CONFIG)


def of_tasks(app: Celery) -> Iterator[SettingChange]:
    """Yield the options of tasks that keep a promise from holding, once every task is there."""
    traced = sys.modules.get("opentelemetry.instrumentation.celery")
    if traced is not None and traced.CeleryInstrumentor().is_instrumented_by_opentelemetry:
        why = "each run has a span of Millpond's too: leave the instrumentor to programs that send"
        yield SettingChange("CeleryInstrumentor", "on", "on", why)
    for name, task in sorted(app.tasks.items()):
        if name.startswith("celery."):
            continue
        if not task.acks_late:
            yield SettingChange(
                f"acks_late of {name}", False, False, "a killed worker loses it, and it has no dead letter"
            )
        flush_every, ahead = getattr(task, "flush_every", 0), getattr(app, "in_flight", None)
        if ahead is not None and isinstance(flush_every, int) and flush_every > ahead.prefetch:
            why = f"celery-batches collects what a process holds: give its pool prefetch = {flush_every}"
            yield SettingChange(f"flush_every of {name}", flush_every, f"prefetch {ahead.prefetch}", why)
        if task.rate_limit:
            yield SettingChange(f"rate_limit of {name}", task.rate_limit, task.rate_limit, _RATE)


_RATE = "it holds for each process: `rate` of the queue holds for the whole fleet"


def _no_pool_text(queue: str) -> str:
    return f'no pool of the table takes from it: queues = ["{queue}"] in the [pools.NAME] of its workers'


def changes_text(changes: list[SettingChange]) -> str:
    """Return the changes as lines for the log of a starting worker, or "" if there are none."""
    if not changes:
        return ""
    rows = [
        (each.setting, _shorten_value(each.theirs), _shorten_value(each.ours), each.why) for each in changes
    ]
    widths = [max(len(row[n]) for row in rows) for n in range(3)]
    lines = [
        f"  {row[0]:{widths[0]}}  {row[1]:>{widths[1]}} -> {row[2]:{widths[2]}}  {row[3]}" for row in rows
    ]
    return "\n".join(["Settings of the application that Millpond replaces or cannot honour:", *lines])


def _shorten_value(value: Any) -> str:
    """Return the text of a value, cut to 24 characters."""
    text = str(value)
    return text if len(text) <= 24 else f"{text[:23]}…"


def main() -> None:
    """Print the broker of the application named, and the prefix of its keys.

    Run by the supervisor, which imports no application itself.
    """
    try:
        app = load_app(sys.argv[1])
        prefix = (app.conf.broker_transport_options or {}).get("global_keyprefix") or ""
        sys.stdout.write(f"\nbroker {celery_application.broker_url(app) or ''}\nprefix {prefix}\n")
    except SettingsError as error:
        sys.exit(f"millpond: {error}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main()

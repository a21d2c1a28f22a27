"""Millpond's own Celery application: its settings, without any task.

The worker adds the handlers (`worker/app.py`). Flower and `celery inspect` need only the settings.
"""

from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Queue

from millpond.broker.celery.connection import Connection
from millpond.broker.url import BrokerURL
from millpond.tasks.pools import PoolsTable
from millpond.tasks.settings import Settings

TRANSPORT = "millpond.broker.transport:Transport"


class MillpondAMQP(AMQP):
    """Celery's AMQP class, which opens connections of `broker/celery/connection.py`."""

    Connection = Connection


def celery_app(settings: Settings) -> Celery:
    """Return a Celery application of the configured broker, with Millpond's transport."""
    url = BrokerURL.parse(settings.broker_url) if settings.broker_url else None
    app = Celery(
        "millpond",
        # Without the login, which Celery shows in logs: connections use the transport option `url`.
        broker=url.without_login if url else None,
        amqp="millpond.tasks.app:MillpondAMQP",
        set_as_current=False,
    )
    app.conf.update(_celery_settings(settings.table))
    app.conf.update(
        broker_transport=TRANSPORT,
        broker_transport_options={**transport_options(settings), **({"url": url} if url else {})},
    )
    return app


def transport_options(settings: Settings) -> dict[str, Any]:
    """Return the options of the transport: kombu's own, and the leases and limits of the queues."""
    leases = {name: queue.lease_seconds for name, queue in settings.table.queues.items()}
    return {
        "global_keyprefix": settings.key_prefix,
        "socket_timeout": settings.broker_timeout_seconds,
        "socket_connect_timeout": settings.broker_timeout_seconds,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "send_copies": settings.send_copies,
        "lease_seconds": min(leases.values()),
        "lease_terms_ms": {name: int(1000 * seconds) for name, seconds in leases.items()},
        "queues": {name: queue.broker_limits() for name, queue in settings.table.queues.items()},
    }


def _celery_settings(pools_table: PoolsTable) -> dict[str, Any]:
    """Return the Celery settings without which Millpond's promises would not hold."""
    return {
        # Messages are JSON, on queues of the table or created on demand.
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "task_queues": [Queue(name, routing_key=name) for name in pools_table.queues],
        "task_default_queue": "default",
        "task_create_missing_queues": True,
        # Messages are settled after the run, and delivered again if the worker is lost.
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        # The number of slots is fixed. The transport adds the pool's prefetch.
        "worker_prefetch_multiplier": 1,
        "worker_enable_prefetch_count_reduction": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # Events for Flower and `celery inspect`.
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "worker_hijack_root_logger": False,
        "enable_utc": True,
        "timezone": "UTC",
    }

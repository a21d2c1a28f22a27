"""The routes of Millpond's pages within Flower's application."""

from typing import Any

from tornado.web import url

from millpond.monitor.pages import api, batches, broker, dead, pools, queues, schedules, static_files
from millpond.monitor.pages.guard import path_prefix

ROUTES = (
    ("/pools", pools.PoolsPage, "pools"),
    ("/queues", queues.QueuesPage, "queues"),
    ("/queues/([^/]+)", queues.QueuePage, "queue"),
    ("/queues/([^/]+)/(pause|resume|limits)", queues.ChangeQueue, "change-queue"),
    ("/dead", dead.DeadLettersPage, "dead"),
    ("/dead/([^/]+)/([0-9]+-[0-9]+)", dead.DeadLetterPage, "dead-letter"),
    ("/dead/(requeue|purge)", dead.ChangeDeadLetters, "act-on-dead"),
    ("/batches", batches.BatchesPage, "batches"),
    ("/batches/([^/]+)", batches.BatchPage, "batch"),
    ("/batches/([^/]+)/cancel", batches.CancelBatch, "cancel-batch"),
    ("/schedules", schedules.SchedulesPage, "schedules"),
    ("/api/millpond/ready", api.json_handler(api.read_ready), None),
    ("/api/millpond/pools", api.json_handler(api.read_pools), "pools-json"),
    ("/api/millpond/queues", api.json_handler(api.read_queues), None),
    ("/api/millpond/queues/([^/]+)", api.json_handler(api.read_queue), None),
    ("/api/millpond/batches", api.json_handler(api.read_batches), None),
    ("/api/millpond/scaling/([^/]+)", api.json_handler(api.read_scaling), None),
    ("/metrics", api.MetricsText, None),
    ("/broker", broker.Broker, None),
    ("/api/queues/length", broker.QueueLengths, None),
)


def add_routes(application: Any) -> None:
    """Add the routes before Flower's own. `/metrics`, `/broker` and the queue lengths replace Flower's."""
    prefix = path_prefix(application.options.url_prefix)
    rules = [url(prefix + pattern, handler, name=name) for pattern, handler, name in ROUTES]
    folder = {"path": str(static_files.FOLDER)}
    static = url(f"{prefix}/millpond/static/([a-z_.]+)", static_files.StaticFiles, folder, "millpond-static")
    application.settings["static_versions"] = static_files.file_versions()
    application.add_handlers(".*", [*rules, static])

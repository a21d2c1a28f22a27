"""Add Millpond's pages to Flower's application: where each is, and who answers for it."""

from typing import Any

from tornado.web import url

from millpond.monitor.pages import api, batches, dead, files, metrics, pools, queues, scaling, schedules

ROUTES = (
    ("/pools", pools.Pools, "pools"),
    ("/queues", queues.Queues, "queues"),
    ("/queues/([^/]+)", queues.Queue, "queue"),
    ("/queues/([^/]+)/(pause|resume|limits)", queues.Change, "change-queue"),
    ("/dead", dead.DeadLetters, "dead"),
    ("/dead/([^/]+)/([0-9]+-[0-9]+)", dead.DeadLetter, "dead-letter"),
    ("/dead/(requeue|purge)", dead.Act, "act-on-dead"),
    ("/batches", batches.Batches, "batches"),
    ("/batches/([^/]+)", batches.Batch, "batch"),
    ("/batches/([^/]+)/cancel", batches.Cancel, "cancel-batch"),
    ("/schedules", schedules.Schedules, "schedules"),
    ("/api/millpond/ready", api.Ready, None),
    ("/api/millpond/pools", api.Pools, "pools-json"),
    ("/api/millpond/queues", api.Queues, None),
    ("/api/millpond/queues/([^/]+)", api.Queue, None),
    ("/api/millpond/batches", api.Batches, None),
    ("/api/millpond/scaling/([^/]+)", scaling.Scaling, None),
    ("/metrics", metrics.Metrics, None),
)


def install(application: Any) -> None:
    """Put the pages before Flower's own, of which they replace `/metrics`."""
    prefix = (application.options.url_prefix or "").strip("/")
    before = f"/{prefix}" if prefix else ""
    rules = [url(before + pattern, handler, name=name) for pattern, handler, name in ROUTES]
    files_ = url(f"{before}/millpond/static/(.+)", files.OwnFiles, {"path": str(files.FOLDER)}, "own-file")
    application.settings["own_versions"] = files.versions()
    application.add_handlers(".*", [*rules, files_])

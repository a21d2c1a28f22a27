"""Pools, queues, batches and dead letters as JSON objects, for `--json` and the API beside Flower's pages."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from millpond.broker.batches.record import Summary
from millpond.broker.inspect.dead_letters import DeadLetter
from millpond.broker.stats.histogram import Histogram
from millpond.monitor.diagnosis.diagnosis import Diagnosis
from millpond.monitor.metrics import QUEUE_COUNTERS
from millpond.monitor.snapshot import PoolView, QueueView
from millpond.tasks.contract import contract_of
from millpond.tasks.errors import UnknownKind
from millpond.tasks.redaction import redact


def queue_json(view: QueueView) -> dict[str, Any]:
    """Return the JSON object of a queue.

    `depth` is the number of ready messages of all priorities, as KEDA expects it. Counters have the names of
    the metrics.
    """
    return {
        **asdict(view.depth),
        "counters": {
            name: view.depth.counters[stored]
            for stored, (name, _help) in QUEUE_COUNTERS.items()
            if stored in view.depth.counters
        },
        "depth": view.depth.ready,
        "state": view.state,
        "in_rate": view.in_rate,
        "out_rate": view.out_rate,
        "limits": asdict(view.limits),
        "pools": list(view.pools),
        "type": "queue",
    }


def pool_json(view: PoolView, diagnosis: Diagnosis | None = None) -> dict[str, Any]:
    """Return the JSON object of a pool: its entry in the table, its processes, its last minute's figures.

    If a diagnosis is given, the object has that too.
    """
    table_entry = {} if view.pool is None else view.pool.model_dump(mode="json")
    return {
        "type": "pool",
        "pool": view.name,
        **table_entry,
        "queues": [queue.name for queue in view.queues],
        "slots": view.pool.slots if view.pool else view.slots,
        "slots_running": view.slots,
        "busy": view.busy,
        "drained_at_ms": view.drained_at_ms,
        "in_flight": view.in_flight,
        "ready": view.ready,
        "rate": view.rate,
        "utilisation": view.utilisation,
        "wait_seconds": quantiles_json(view.wait),
        "service_seconds": quantiles_json(view.service),
        "events": {"shown": view.shown, "left_out": view.left_out},
        "running": [asdict(heartbeat) for heartbeat in view.running],
        **({} if diagnosis is None else {"diagnosis": asdict(diagnosis)}),
    }


def batch_json(summary: Summary) -> dict[str, Any]:
    """Return the JSON object of a batch: its counts. Times are ms by the server's clock."""
    return {**asdict(summary), "pending": summary.pending, "complete": summary.complete}


def dead_letter_json(letter: DeadLetter) -> dict[str, Any]:
    """Return the JSON object of a dead letter without its arguments and its traceback."""
    return {
        "id": letter.id,
        "queue": letter.queue,
        "task_id": letter.task_id,
        "kind": letter.kind,
        "reason": letter.reason,
        "error": letter.error,
        "deliveries": letter.deliveries,
        "died_at": datetime.fromtimestamp(letter.died_at_ms / 1000, UTC).isoformat(),
    }


def whole_dead_letter_json(letter: DeadLetter) -> dict[str, Any]:
    """Return the JSON object of a dead letter with its redacted arguments and all details of its error."""
    return {**dead_letter_json(letter), "kwargs": redacted_kwargs(letter), **letter.detail}


def redacted_kwargs(letter: DeadLetter) -> Mapping[str, Any]:
    """Return the arguments with secret values redacted. If the kind is unknown here, all values are."""
    try:
        return redact(contract_of(letter.kind), letter.kwargs)
    except UnknownKind:
        return dict.fromkeys(letter.kwargs, "[redacted: no contract of this kind is known here]")


def quantiles_json(histogram: Histogram) -> dict[str, float | None]:
    """Return the median and the 95th and 99th percentile in seconds. They are None for an empty histogram."""
    shares = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    return {name: histogram.quantile(share) for name, share in shares}

"""Write pools, queues, batches and dead letters as JSON has them: the command line's `--json` and
Flower's API.
"""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from millpond.broker.batches.record import Summary
from millpond.broker.inspect.dead_letters import DeadLetter
from millpond.broker.stats.histogram import Histogram
from millpond.monitor.snapshot import PoolView, QueueView
from millpond.tasks.contract import contract_of, redact
from millpond.tasks.errors import UnknownKind


def queue_object(view: QueueView) -> dict[str, Any]:
    """Return a queue; `depth` is all that waits for a slot, on every priority, as KEDA wants it."""
    return {
        **asdict(view.depth),
        "depth": view.depth.ready,
        "state": view.state,
        "in_rate": view.in_rate,
        "out_rate": view.out_rate,
        "limits": asdict(view.limits),
        "pools": list(view.pools),
        "type": "queue",
    }


def pool_object(view: PoolView) -> dict[str, Any]:
    """Return a pool: what the table says, what runs, and the last minute's figures in seconds."""
    table = {} if view.pool is None else view.pool.model_dump(mode="json")
    return {
        "type": "pool",
        "pool": view.name,
        **table,
        "queues": [queue.name for queue in view.queues],
        "slots": view.pool.slots if view.pool else view.slots,
        "slots_running": view.slots,
        "busy": view.busy,
        "drained_at_ms": view.drained_at_ms,
        "held": sum(queue.depth.in_flight for queue in view.queues),
        "waiting": sum(queue.depth.ready for queue in view.queues),
        "rate": view.rate,
        "utilisation": view.utilisation,
        "wait_seconds": quantiles(view.wait),
        "service_seconds": quantiles(view.service),
        "events": {"shown": view.shown, "left_out": view.left_out},
        "running": [asdict(report) for report in view.running],
    }


def batch_object(summary: Summary) -> dict[str, Any]:
    """Return a batch with its counts; times are ms by the server's clock."""
    return {**asdict(summary), "pending": summary.pending, "complete": summary.complete}


def letter_object(letter: DeadLetter) -> dict[str, Any]:
    """Return what names a dead letter and says why it died."""
    return {
        "id": letter.id,
        "queue": letter.queue,
        "task_id": letter.task_id,
        "kind": letter.kind,
        "reason": letter.reason,
        "error": error_of(letter),
        "deliveries": letter.deliveries,
        "died_at": datetime.fromtimestamp(letter.died_at_ms / 1000, UTC).isoformat(),
    }


def whole_letter_object(letter: DeadLetter) -> dict[str, Any]:
    """Return all of a dead letter, its arguments redacted."""
    return {**letter_object(letter), "kwargs": shown_kwargs(letter), **letter.detail}


def error_of(letter: DeadLetter) -> str:
    """Return the one line that says what went wrong; empty where nobody said."""
    return str(letter.detail.get("error", ""))


def shown_kwargs(letter: DeadLetter) -> Mapping[str, Any]:
    """Return the arguments as they may be shown; those of a kind that is not known here are not."""
    try:
        return redact(contract_of(letter.kind), letter.kwargs)
    except UnknownKind:
        return dict.fromkeys(letter.kwargs, "[redacted: no contract of this kind is known here]")


def quantiles(histogram: Histogram) -> dict[str, float | None]:
    """Return the median, the 95th and the 99th percentile, in seconds."""
    return {name: histogram.quantile(share) for name, share in QUANTILES}


QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))

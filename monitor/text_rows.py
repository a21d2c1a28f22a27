"""Write pools and queues as rows of text, for `status` and `top`."""

from millpond.monitor.formatting import count, duration, rate, share
from millpond.monitor.snapshot import PoolView, QueueView

POOL_COLUMNS = ("pool", "processes", "busy", "done", "use", "waited", "took", "waiting", "held", "queues")
QUEUE_COLUMNS = ("queue", "waiting", "oldest", "in", "out", "held", "delayed", "dead", "state")


def pool_row(view: PoolView) -> tuple[str, ...]:
    """Return a pool as a row for a person; `waited` and `took` are 95th percentiles of the last minute."""
    wanted = view.pool.processes if view.pool else len(view.running)
    return (
        view.name,
        f"{len(view.running)} of {wanted}" + (", drained" if view.drained_at_ms else ""),
        f"{view.busy} of {view.slots}",
        rate(view.rate),
        share(view.utilisation),
        duration(view.wait.quantile(0.95)),
        duration(view.service.quantile(0.95)),
        count(sum(queue.depth.ready for queue in view.queues)),
        count(sum(queue.depth.in_flight for queue in view.queues)),
        " ".join(queue.name for queue in view.queues),
    )


def queue_row(view: QueueView) -> tuple[str, ...]:
    """Return a queue as a row for a person."""
    depth, limits = view.depth, view.limits
    return (
        view.name,
        f"{depth.ready:,} of {limits.bound:,}" if limits.bound else count(depth.ready),
        duration(depth.oldest_seconds),
        rate(view.in_rate),
        rate(view.out_rate),
        count(depth.in_flight),
        count(depth.delayed),
        count(depth.dead),
        f"served by {depth.consumers}" if view.state == "served" else view.state,
    )

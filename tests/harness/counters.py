"""The counters of a queue once all of its tasks have ended."""

from collections.abc import Mapping


def counters_at_the_end(stored: Mapping[str, int], tasks: int) -> dict[str, int]:
    """Return the counters of a queue on which so many tasks were sent, and each has ended.

    A message that a worker returned before it had started it, as a slow one does, or that was delivered
    again, was fetched once more: `stored`, the counters of the broker, have the number.
    """
    fetched_again = stored.get("returned", 0) + stored.get("redelivered", 0)
    return {"published": tasks, "fetched": tasks + fetched_again, "settled": tasks}

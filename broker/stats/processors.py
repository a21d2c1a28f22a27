"""Room on the processors of a pool's hosts: how many times its rate can grow before they are full."""

import math
from collections.abc import Sequence

from millpond.broker.stats.heartbeats import Heartbeat
from millpond.broker.stats.window import Window

#: Slots that wait for a processor for this share of their time have none to spare.
CROWDED = 0.2
#: The share of time in which a quota holds processes back, from which it is the cause.
THROTTLED = 0.2
#: The share of time that threads wait for their interpreter, from which they have no room in it.
SHARED = 0.2
#: The multiple of the rate from which there is clearly room.
ROOM = 1.5


def headroom(minute: Window, running: Sequence[Heartbeat]) -> float:
    """Return how many times a pool's rate can grow before its hosts' processors are full, at least 1."""
    slots = sum(report.slots for report in running)
    computing = minute.share("processor") * (minute.use or 0.0) * slots
    cores = sum({report.host: report.cores for report in running}.values())
    if not computing or not cores:
        return math.inf
    if max(report.throttled for report in running) >= THROTTLED:
        return 1.0
    if minute.share("runnable") < CROWDED:  # other processes there leave the slots their part
        return max(1.0, cores / computing)
    busy = max(report.host_busy for report in running)
    return 1 + max(0.0, 1 - busy) * cores / computing


def processors_are_free(minute: Window, running: Sequence[Heartbeat]) -> bool:
    """True if slots that compute leave processors free, and do not wait for each other's interpreter."""
    return headroom(minute, running) >= ROOM and minute.share("interpreter") < SHARED

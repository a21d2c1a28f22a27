"""Room on the processors of a pool's hosts: how many times its rate can grow before they are full."""

import math
from collections.abc import Sequence

from millpond.broker.stats.heartbeats import Heartbeat
from millpond.broker.stats.window import Window

#: If slots wait for a processor for this share of their time, the processors are full.
CROWDED = 0.2
#: If a quota stops a process in this share of periods, the quota is the limit.
THROTTLED = 0.2
#: If threads wait for the interpreter's lock for this share of their time, the lock is the limit.
SHARED = 0.2
#: There is room if the rate can grow by this factor.
ROOM = 1.5


def compute_headroom(minute: Window, running: Sequence[Heartbeat]) -> float:
    """Return the factor by which a pool's rate can grow before its hosts' processors are full, at least 1."""
    slots = sum(report.slots for report in running)
    computing = minute.share("processor") * (minute.use or 0.0) * slots
    cores = sum({report.host: report.cores for report in running}.values())
    if not computing or not cores:
        return math.inf
    if max(report.throttled for report in running) >= THROTTLED:
        return 1.0
    if minute.share("runnable") < CROWDED:  # other processes of the host leave enough to the slots
        return max(1.0, cores / computing)
    busy = max(report.host_busy for report in running)
    return 1 + max(0.0, 1 - busy) * cores / computing


def processors_are_free(minute: Window, running: Sequence[Heartbeat]) -> bool:
    """True if a pool's rate can grow by the factor `ROOM` before its hosts' processors are full.

    False if its threads wait for the interpreter's lock for the share `SHARED` of their time, or more.
    """
    return compute_headroom(minute, running) >= ROOM and minute.share("interpreter") < SHARED

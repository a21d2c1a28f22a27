"""Square an integer."""

import time

from millpond.tasks.context import Context
from millpond.tasks.handlers import body
from millpond.tasks.squares.contract import Square


@body(Square)
def square(job: Square, context: Context) -> int:
    """Return n times n."""
    if job.hold_seconds:
        time.sleep(job.hold_seconds)
    return job.n * job.n

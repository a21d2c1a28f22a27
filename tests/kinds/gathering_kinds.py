"""The kinds of pond_kinds.py in a worker whose event loop gathers outcomes for a minute before it sends them.

So a worker that is stopped has outcomes that the loop has not sent.
"""

import pond_kinds  # noqa: F401

from millpond.broker.consume import fetch_call

fetch_call.GATHERED_SECONDS = 60.0

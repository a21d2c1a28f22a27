"""One producer process of a load.

`python -m tests.scenarios.load.producing URL FOLDER POLICY SECONDS THREADS`

Each thread sends one task after the other, and appends a line for each to `FOLDER/sent-<process>`: the id;
`taken`, `ran` or `refused`; the time of the outcome; the seconds that the send took; and the time at which
the server gave the sender its grant (`-`: it did not wait in the line).
"""

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from load_kinds import Paced

from millpond.broker.connection import Store
from millpond.broker.keys import QueueKeys
from millpond.broker.outgoing import Outgoing
from millpond.broker.publish import NOBODY, Answer, Caller, Policy, publish
from millpond.producer import backpressure
from millpond.producer.client import Client
from millpond.tasks.errors import QueueFull
from millpond.tasks.settings import Settings

#: How long the server reserves room for a producer with a grant, as in `_admission.lua`.
CALL_MS = 2_000

_called = threading.local()


def main(url: str, folder: str, policy: str, seconds: str, threads: str) -> None:
    """Send for so many seconds with so many threads."""
    until = time.monotonic() + float(seconds)
    notes = os.open(Path(folder) / f"sent-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    backpressure.publish = _watched
    with Client(settings=Settings(broker_url=url, kinds=("load_kinds",))) as client:

        def send() -> None:
            while time.monotonic() < until:
                os.write(notes, _send(client, folder, policy).encode())

        senders = [threading.Thread(target=send) for _ in range(int(threads))]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()


def _send(client: Client, folder: str, policy: str) -> str:
    at, _called.at = time.monotonic(), "-"
    try:
        sent = client.send(Paced(folder=folder), overflow=policy)
    except QueueFull as full:
        time.sleep(min(1.0, max(0.005, full.retry_after_seconds or 0.05)))
        return f"- refused {time.time():.4f} {time.monotonic() - at:.4f} -\n"
    how = "taken" if sent.ran_here is None else "ran"
    return f"{sent.id} {how} {time.time():.4f} {time.monotonic() - at:.4f} {_called.at}\n"


def _watched(
    store: Store, messages: Sequence[Outgoing], *, policy: Policy, caller: Caller = NOBODY
) -> list[Answer]:
    """Publish, after looking up when the server gave this ticket its grant."""
    if caller.ticket:
        waiters = QueueKeys(messages[0].queue, store.prefix).waiters
        kept = store.client.hget(f"{waiters}:called", caller.ticket)
        if kept:
            _called.at = f"{(int(kept.split()[1]) - CALL_MS) / 1000:.3f}"
    return publish(store, messages, policy=policy, caller=caller)


if __name__ == "__main__":
    main(*sys.argv[1:])

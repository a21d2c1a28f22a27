"""`millpond adopt` and messages whose ETA is no time."""

import json

from millpond.broker.connection import Store
from millpond.monitor.cli import adopt


def test_a_message_with_a_wrong_eta_is_taken_in_as_the_others_are(store: Store) -> None:
    """The command goes on to its end: a worker makes the message a dead letter, with the reason."""
    message = {"body": "", "headers": {"id": "a", "task": "t", "eta": 17}, "properties": {}}
    for queue in ("orders", "payments"):
        store.client.hset(f"{store.prefix}unacked", queue, json.dumps([message, "", queue]))
    rows = adopt._adopt_messages(store, (), everything=True)
    assert [(row["queue"], row["taken_in"], row["with_eta"]) for row in rows] == [
        ("orders", 1, 1),
        ("payments", 1, 1),
    ]
    assert store.client.llen(f"{store.prefix}payments") == 1

"""Messages that no worker can read harm none of the searches that meet them."""

import json

from millpond.broker.batches.running import find_running_tasks
from millpond.broker.connection import Store
from millpond.broker.inspect import dead_letters, task_lookup
from millpond.broker.keys import QueueKeys, queues_key
from millpond.broker.stock_unacked import read_unacked
from millpond.broker.task_state import TaskState

#: The server reads these headers, and no worker takes the message, for it has no properties.
HEADERS = {"id": "odd", "task": "a.kind", "millpond": {"batch": "of-odd"}}
ODD = json.dumps({"headers": HEADERS, "body": ""})
#: A text that is nested too deep for any parser.
DEEP = "[" * 100_000


def test_a_task_that_no_worker_can_read_is_found(store: Store) -> None:
    """The search for its id finds where its message is, without a kind."""
    keys = QueueKeys("default", store.prefix)
    store.client.sadd(queues_key(store.prefix), "default")
    store.client.lpush(keys.ready[0], ODD)
    found = task_lookup.find_task(store, "odd")
    assert found is not None
    assert (found.state, found.queue, found.kind, found.behind) == (TaskState.READY, "default", "", 0)


def test_running_tasks_of_a_batch_are_found_beside_what_no_worker_can_read(store: Store) -> None:
    """A message in flight that is none is left out; so is one that only mentions the batch."""
    keys = QueueKeys("default", store.prefix)
    store.client.sadd(queues_key(store.prefix), "default")
    store.client.zadd(keys.consumers, {"pool@host:1:a.0": 1})
    good = json.dumps({"headers": {**HEADERS, "id": "good"}, "properties": {}})
    other = json.dumps({"headers": {"id": "of-odd"}, "properties": {}})
    messages = {"1/1/0": ODD, "2/1/0": DEEP + "of-odd", "3/1/0": other, "4/1/0": good}
    store.client.hset(keys.in_flight("pool@host:1:a.0"), mapping=messages)
    running = find_running_tasks(store, "of-odd", limit=1)
    assert [(task.id, task.kind, task.process) for task in running] == [("good", "a.kind", "pool@host:1:a")]


def test_what_stock_workers_left_is_read_beside_what_nobody_can_read(store: Store) -> None:
    """An entry of kombu's that is nested too deep is left out."""
    good = json.dumps([{"headers": HEADERS, "properties": {}}, "", "default"])
    store.client.hset(f"{store.prefix}unacked", mapping={"deep": DEEP, "odd": f"[{ODD}, 1]", "good": good})
    assert [unacked.tag for unacked in read_unacked(store)] == ["good"]


def test_a_dead_letter_that_nobody_can_read_has_no_arguments(store: Store) -> None:
    """Its arguments are empty, whatever its text is."""
    keys = QueueKeys("default", store.prefix)
    texts = (DEEP, "{", "[]", ODD, '{"body": 7, "properties": {}}', '{"body": "{}", "properties": [1]}')
    for text in texts:
        fields = {"message": text, "reason": "not a message", "detail": "{}", "deliveries": 1}
        store.client.xadd(keys.dead, fields)
    letters = list(dead_letters.read_dead_letters(store, "default"))
    assert [letter.kwargs for letter in letters] == [{}] * len(texts)

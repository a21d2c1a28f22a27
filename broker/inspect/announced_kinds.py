"""The kinds that the consumers of a queue have. Each consumer announces them with its lease (_aside.lua)."""

from millpond.broker.connection import Store, translate_errors
from millpond.broker.keys import QueueKeys


def read_announced_kinds(store: Store, queue: str, *, now_ms: int) -> dict[str, frozenset[str]]:
    """Return the kinds of each consumer that has a lease on a queue. They are empty if it announces none.

    Raises `BrokerAway`.
    """
    keys = QueueKeys(queue, store.prefix)
    with translate_errors(f"reading the kinds of queue {queue!r}"):
        consumers = [name.decode() for name in store.client.zrangebyscore(keys.consumers, now_ms, "+inf")]
        texts = store.client.hmget(keys.kinds, consumers) if consumers else []
    return {
        name: frozenset((text or b"").decode().split("\n")) - {""}
        for name, text in zip(consumers, texts, strict=True)
    }

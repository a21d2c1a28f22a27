"""Ids of tasks: none is given twice."""

import os
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

from millpond.broker.message import new_id


def test_ids_are_random_uuids_as_everybody_writes_them() -> None:
    """Version 4 of RFC 9562, lower case; the bits that are not fixed differ from id to id."""
    ids = [UUID(text) for text in (new_id() for _ in range(1_000)) if text == str(UUID(text))]
    assert len(ids) == 1_000
    assert {(id.version, id.variant) for id in ids} == {(4, RFC_4122)}
    free = (1 << 128) - 1 - (0b1111 << 76) - (0b11 << 62)
    ones, zeros = 0, 0
    for id in ids:
        ones, zeros = ones | id.int, zeros | ~id.int
    assert ones & free == zeros & free == free


def test_threads_and_forked_processes_share_no_id() -> None:
    """Ids drawn ahead are used once, by one thread, and by no child that was forked with them."""
    with ThreadPoolExecutor(8) as threads:
        drawn = [
            id for ids in threads.map(lambda _: [new_id() for _ in range(2_000)], range(8)) for id in ids
        ]
    ids = set(drawn)
    assert len(ids) == len(drawn) == 16_000
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(new_id() for _ in range(200)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    ids.update(new_id() for _ in range(200))
    ids.update(os.read(reading, 65_536).decode().split())
    os.close(reading)
    os.close(writing)
    assert len(ids) == 16_400

"""Processes of one pool on one host have different names, under any number of supervisors."""

import os
import stat
from itertools import islice
from pathlib import Path

import pytest

from millpond.tasks.process.paths import open_private_scratch
from millpond.worker.supervise.process_numbers import ProcessNumbers

BROKER = "redis://here/0"
pytestmark = pytest.mark.usefixtures("scratch")


def take(numbers: ProcessNumbers, count: int, pool: str = "email") -> list[int]:
    """Return the next free numbers."""
    return list(islice(numbers.lock_free_numbers(pool), count))


def test_a_second_supervisor_takes_the_next_numbers() -> None:
    """Numbers are free again when their supervisor has ended."""
    with ProcessNumbers(BROKER, "") as first, ProcessNumbers(BROKER, "") as second:
        assert take(first, 2) == [1, 2]
        assert take(second, 2) == [3, 4]
    with ProcessNumbers(BROKER, "") as third:
        assert take(third, 2) == [1, 2]


def test_the_lowest_free_number_is_taken_first() -> None:
    """The numbers of an ended supervisor are free while one with higher numbers runs."""
    first, second = ProcessNumbers(BROKER, ""), ProcessNumbers(BROKER, "")
    with second:
        with first:
            assert (take(first, 1), take(second, 1)) == ([1], [2])
        with ProcessNumbers(BROKER, "") as third:
            assert take(third, 2) == [1, 3]


def test_other_pools_brokers_and_prefixes_have_numbers_of_their_own() -> None:
    """The names of processes must differ only within a pool of one broker and prefix."""
    with (
        ProcessNumbers(BROKER, "") as here,
        ProcessNumbers("redis://there/0", "") as there,
        ProcessNumbers(BROKER, "a.") as apart,
    ):
        assert [take(here, 1), take(here, 1, "files"), take(there, 1), take(apart, 1)] == [[1]] * 4


def test_workers_start_without_locks_if_the_folder_cannot_be_written(scratch: Path) -> None:
    """Then every supervisor numbers its processes from 1."""
    scratch.joinpath("file").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLPOND_SCRATCH", str(scratch / "file"))
        with ProcessNumbers(BROKER, "") as first, ProcessNumbers(BROKER, "") as second:
            assert take(first, 2) == take(second, 2) == [1, 2]


def test_the_folder_is_this_users_own(scratch: Path) -> None:
    """The folder of numbers is created first, and closed to other users from then on."""
    own = scratch / f"millpond-{os.getuid()}"
    with ProcessNumbers(BROKER, "") as first:
        assert take(first, 1) == [1]
    assert [stat.S_IMODE(each.stat().st_mode) for each in (own, own / "numbers")] == [0o700, 0o700]
    own.chmod(0o755)
    os.close(open_private_scratch())
    assert stat.S_IMODE(own.stat().st_mode) == 0o700

"""Processes of one pool on one host have different names, under any number of supervisors."""

import os
import stat
from itertools import islice
from pathlib import Path

import pytest

from millpond.tasks.process.paths import open_private_scratch
from millpond.worker.supervise.process_numbers import ProcessNumbers

BROKER = "redis://here/0"


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Separate the process numbers of this test from those of others."""
    monkeypatch.setenv("MILLPOND_SCRATCH", str(tmp_path))
    return tmp_path


def take(numbers: ProcessNumbers, count: int, pool: str = "email") -> list[int]:
    """Return the next free numbers."""
    return list(islice(numbers.lock_free_numbers(pool), count))


def test_a_second_supervisor_goes_on_where_the_first_ends() -> None:
    """A number that one returns as it ends, the next takes again."""
    with ProcessNumbers(BROKER, "") as first, ProcessNumbers(BROKER, "") as second:
        assert take(first, 2) == [1, 2]
        assert take(second, 2) == [3, 4]
    with ProcessNumbers(BROKER, "") as third:
        assert take(third, 2) == [1, 2]


def test_a_gap_is_filled() -> None:
    """The numbers of a supervisor that has gone are free while a later one runs on."""
    first, second = ProcessNumbers(BROKER, ""), ProcessNumbers(BROKER, "")
    with second:
        with first:
            assert (take(first, 1), take(second, 1)) == ([1], [2])
        with ProcessNumbers(BROKER, "") as third:
            assert take(third, 2) == [1, 3]


def test_other_pools_and_other_brokers_count_by_themselves() -> None:
    """A name needs to be the only one where it is seen."""
    with (
        ProcessNumbers(BROKER, "") as here,
        ProcessNumbers("redis://there/0", "") as there,
        ProcessNumbers(BROKER, "a.") as apart,
    ):
        assert [take(here, 1), take(here, 1, "files"), take(there, 1), take(apart, 1)] == [[1]] * 4


def test_a_folder_that_takes_no_file_keeps_nobody_from_starting(scratch: Path) -> None:
    """Then everybody counts from 1."""
    scratch.joinpath("file").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MILLPOND_SCRATCH", str(scratch / "file"))
        with ProcessNumbers(BROKER, "") as first, ProcessNumbers(BROKER, "") as second:
            assert take(first, 2) == take(second, 2) == [1, 2]


def test_the_folder_is_this_users_own(scratch: Path) -> None:
    """Numbers are taken before any other file is made: the folder is closed to others from then on."""
    own = scratch / f"millpond-{os.getuid()}"
    with ProcessNumbers(BROKER, "") as first:
        assert take(first, 1) == [1]
    assert [stat.S_IMODE(each.stat().st_mode) for each in (own, own / "numbers")] == [0o700, 0o700]
    own.chmod(0o755)
    os.close(open_private_scratch())
    assert stat.S_IMODE(own.stat().st_mode) == 0o700

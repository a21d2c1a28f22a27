"""Tables are converted in constant memory, measured in processes of their own."""

import sys
from pathlib import Path

import pytest

from tests.harness.run_to_end import run_to_end

_CONVERT = """
import sys
from millpond.tasks.context import Context
from millpond.tasks.files.contract import ToParquet
from millpond.tasks.files.storage import Storage
from millpond.tasks.files.tables import to_parquet
from tests.harness.peak_memory import peak_mb
job = ToParquet(source=sys.argv[2], target="out.parquet", row_group_rows=10_000)
to_parquet(job, Storage(roots=(sys.argv[1],)), Context())
print(peak_mb())
"""
_ROWS = {
    "csv": lambda at: f"{at},name {at},{at * 1.5},2024-01-01 10:00:{at % 60:02},some more text to read\n",
    "jsonl": lambda at: f'{{"id":{at},"name":"name {at}","x":{at * 1.5},"more":["some","text"]}}\n',
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_six_times_the_rows_take_no_more_memory(root: Path, kind: str) -> None:
    """The peak of 192 MB is that of 32 MB, by which the allocator has nearly taken what it takes at most."""
    peaks = [_peak_mib(root, kind, megabytes) for megabytes in (32, 192)]
    assert peaks[1] < peaks[0] + 80


def _peak_mib(root: Path, kind: str, megabytes: int) -> float:
    source = root / f"in.{kind}"
    with source.open("w") as file:
        if kind == "csv":
            file.write("id,name,x,at,more\n")
        at = 0
        while file.tell() < megabytes * 1_000_000:
            file.write("".join(_ROWS[kind](each) for each in range(at, at + 1_000)))
            at += 1_000
    command = [sys.executable, "-c", _CONVERT, str(root), source.name]
    return float(run_to_end(command, check=True).stdout)

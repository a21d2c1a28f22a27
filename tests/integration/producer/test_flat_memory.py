"""The memory of the command line stays flat, however much it sends.

Here with fewer inputs and shorter queues than in life, so that it takes seconds; in full, by hand:

    python tests/integration/producer/flat_memory.py --files 10000 --recipients 100000
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from flat_memory import campaign, files, fleet

from millpond.tasks.settings import Settings

FILES = 4_000
RECIPIENTS = 5_000
#: A tenth of the inputs fills the queue several times, so the work in progress is at its most by then.
BOUND = 100
#: Half a kilobyte for each input would be as much; the command keeps 70 bytes a file on purpose. The
#: allocator takes memory by the megabyte, which is half of it.
GROWTH_MB = 2.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(root: Path) -> Iterator[Settings]:
    """Run the pools for files and mail behind short queues."""
    with fleet(root, bound=BOUND) as running:
        yield running


def test_the_memory_of_a_command_over_many_files_is_flat(settings: Settings, root: Path) -> None:
    """From a tenth of the files on, the memory of `millpond files` does not grow."""
    memory = files(settings, root, FILES)
    assert (memory.results, memory.failed) == (FILES, 0)
    assert memory.growth_mb < GROWTH_MB, memory


def test_the_memory_of_a_campaign_is_flat(settings: Settings, root: Path) -> None:
    """From a tenth of the recipients on, the memory of `millpond email campaign` does not grow."""
    memory = campaign(settings, root, RECIPIENTS)
    assert (memory.results, memory.failed) == (RECIPIENTS, 0)
    assert memory.growth_mb < GROWTH_MB, memory

"""Limit processes to a container's memory: a control group, as a container engine makes one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class MemoryLimit:
    """A group of processes that may take so much memory together; the kernel kills beyond it."""

    folder: Path

    @property
    def prefix(self) -> Sequence[str]:
        """Return the words to put before a command to run it in the group."""
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.folder)]

    @property
    def peak_bytes(self) -> int:
        """Return the most that was taken at once, caches of files included: these the kernel takes back."""
        return int((self.folder / "memory.max_usage_in_bytes").read_text())

    @property
    def killed(self) -> int:
        """Return how many processes the kernel has killed."""
        facts = dict(line.split() for line in (self.folder / "memory.oom_control").read_text().splitlines())
        return int(facts["oom_kill"])


def may_limit() -> bool:
    """True where this user may make control groups for memory (version 1)."""
    return os.access(GROUPS / "memory.limit_in_bytes", os.W_OK)


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[MemoryLimit]:
    """Make a group of so much memory for the length of a block; its processes must have ended by then."""
    folder = GROUPS / f"millpond-test-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
        yield MemoryLimit(folder)
    finally:
        folder.rmdir()

"""Limit the memory of processes by a control group, as a container engine does."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class MemoryLimit:
    """A control group. The kernel kills a process of it when all together would exceed the limit."""

    folder: Path

    @property
    def prefix(self) -> Sequence[str]:
        """The words to put before a command, so that it runs in the group."""
        return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self.folder)]

    @property
    def peak_bytes(self) -> int:
        """The most memory that was in use at once, with caches of files, which the kernel can reclaim."""
        return int((self.folder / "memory.max_usage_in_bytes").read_text())

    @property
    def killed(self) -> int:
        """The number of processes that the kernel has killed."""
        facts = dict(line.split() for line in (self.folder / "memory.oom_control").read_text().splitlines())
        return int(facts["oom_kill"])


def can_limit_memory() -> bool:
    """True where this user may make control groups for memory (version 1)."""
    return os.access(GROUPS / "memory.limit_in_bytes", os.W_OK)


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[MemoryLimit]:
    """Create a group with this limit for the length of a block. Its processes must have ended by then."""
    folder = GROUPS / f"millpond-test-{os.getpid()}"
    folder.mkdir()
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit_bytes))
        yield MemoryLimit(folder)
    finally:
        folder.rmdir()

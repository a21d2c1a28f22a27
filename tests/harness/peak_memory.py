"""The most memory that a process had at once.

`getrusage` does not measure it: a process inherits the peak of the process that started it, here pytest.
"""

from pathlib import Path


def peak_mb(pid: int | str = "self") -> float:
    """Return the most memory that a process had at once, without its children, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)

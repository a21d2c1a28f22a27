"""The most memory that a process had at once.

`getrusage` is no measure of it: a process inherits the peak of the one that started it, here that of pytest.
"""

from pathlib import Path


def peak_mb(pid: int | str = "self") -> float:
    """Return the peak of a process alone, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) / 1024, 1)

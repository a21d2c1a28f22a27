"""Read from the kernel what a thread does: it runs on a processor, or waits for a peer, a lock or a file.

Only Linux reports it (proc(5): `task/TID/syscall`, `schedstat`); on other systems every activity is
`unknown`. No thread is stopped or traced. Some files are read, and a thread may go on meanwhile: then the
answer is out of date.
"""

import os
import platform
import re
import socket
import struct
import threading
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from millpond.worker.report.library_data import data_of_libraries

Category = Literal[
    "processor", "runnable", "interpreter", "peer", "lock", "thread", "file", "child", "sleep", "unknown"
]

#: System calls that block, by number. The names are Linux's.
_CALLS = {
    "x86_64": {
        0: "read", 1: "write", 7: "poll", 17: "pread", 18: "pwrite", 19: "read", 20: "write",
        23: "select", 35: "sleep", 42: "connect", 43: "accept", 44: "send", 45: "recv", 46: "send",
        47: "recv", 61: "wait", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fsync", 202: "futex",
        230: "sleep", 232: "epoll", 247: "wait", 270: "select", 271: "poll", 281: "epoll", 288: "accept",
        441: "epoll",
    },
    "aarch64": {
        22: "epoll", 25: "fcntl", 32: "flock", 63: "read", 64: "write", 65: "read", 66: "write",
        67: "pread", 68: "pwrite", 72: "select", 73: "poll", 82: "fsync", 83: "fsync", 95: "wait",
        98: "futex", 101: "sleep", 115: "sleep", 202: "accept", 203: "connect", 206: "send", 207: "recv",
        211: "send", 212: "recv", 242: "accept", 260: "wait", 441: "epoll",
    },
}  # fmt: skip
#: System calls that open, list, move and delete files, by number: a slow disk holds these up too.
_FILE_CALLS = {
    "x86_64": frozenset((
        2, 3, 4, 5, 6, 21, 26, 76, 77, 78, 82, 83, 84, 86, 87, 162, 217, 257, 258, 262, 263, 264, 265, 269,
        277, 285, 306, 316, 326, 332, 437,
    )),
    "aarch64": frozenset((
        34, 35, 37, 38, 45, 46, 47, 48, 56, 57, 61, 79, 80, 81, 84, 227, 267, 276, 285, 291, 437,
    )),
}  # fmt: skip
_FILES = ("fcntl", "flock", "fsync", "pread", "pwrite")
#: The name of a peer at the other end of a socket without an address, on the same host.
UNNAMED = "a socket"
#: The number that the kernel reports for a thread that is blocked outside a system call, on a page of memory.
_PAGE_FAULT = -1
#: An event loop whose next timer is due within this time sleeps; later ones are time-outs.
TIMER_MS, _UNSIGNED = 10_000, 0xFFFFFFFF
#: The maximum of processes that are checked for one child program: itself and its descendants.
MOST_DESCENDANTS = 50
#: The names of standard streams. If they are pipes, a program that reads the logs may be slow.
_OUTPUTS = {1: "standard output", 2: "standard error"}
_ON_A_DESCRIPTOR = ("read", "write", "recv", "send", "connect", "accept")

#: struct pollfd: a descriptor and two shorts.
_POLLFD = struct.Struct("ihh")


@dataclass(frozen=True, slots=True)
class Activity:
    """The activity of a thread: its category, and the name of the peer, lock or file, if it has one."""

    category: Category
    name: str = ""
    trips: "RoundTrips | None" = field(default=None, compare=False)


class RoundTrips(NamedTuple):
    """The number of a TCP connection, its round trips so far, and the time since it last sent data."""

    connection: int
    trips: int
    waited_ms: int


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds that a thread has run and that it has waited for a processor since it began."""

    ran: float
    waited: float


def thread_clock(tid: int) -> Clock | None:
    """Return the clock of a thread by its kernel id, or None if the kernel does not report it."""
    with suppress(OSError, ValueError, IndexError):
        ran, waited = Path(f"/proc/self/task/{tid}/schedstat").read_text().split()[:2]
        return Clock(int(ran) / 1e9, int(waited) / 1e9)
    return None


def read_activity(tid: int) -> Activity:
    """Return the present activity of a thread, by its kernel id."""
    try:
        words = Path(f"/proc/self/task/{tid}/syscall").read_text().split()
    except OSError:
        return Activity("unknown")
    if words[0] == "running":
        return Activity("processor")
    number, machine = int(words[0]), platform.machine()
    if number == _PAGE_FAULT:
        return Activity("file", "memory that is read from a disk")
    if number in _FILE_CALLS.get(machine, ()):
        return Activity("file")
    call = _CALLS.get(machine, {}).get(number, "")
    arguments = [int(word, 16) for word in words[1:7]]
    if call == "futex":
        return _activity_at_futex(arguments[0])
    if call == "sleep":
        return Activity("sleep")
    if call == "wait":
        return Activity("child")
    if call in ("fcntl", "flock"):
        return Activity("lock", _file_path(arguments[0]))
    if call in _FILES:
        return Activity("file", _disk_name(arguments[0]))
    if call in _ON_A_DESCRIPTOR:
        return _activity_at_descriptor(arguments[0])
    if call not in ("poll", "select", "epoll"):
        return Activity("unknown")
    activity = _likeliest_activity(_awaited_descriptors(call, arguments))
    if call == "epoll" and activity.name == UNNAMED:
        return _activity_of_idle_loop(arguments[3])
    return activity


def is_computing(pid: int) -> bool:
    """True if a child program or a descendant of it is on a processor, or waits for one."""
    pids = [pid]
    for descendant in pids:  # the list grows in the loop
        if _is_runnable(Path(f"/proc/{descendant}")):
            return True
        if len(pids) < MOST_DESCENDANTS:
            pids += _children_of(Path(f"/proc/{descendant}/task"))
    return False


def other_threads_compute(slots: Set[int]) -> bool:
    """True if a thread that a handler or a C library has started in this process computes.

    The threads of `slots` (their idents), those of Millpond and the calling one do not count.
    """
    own = {os.getpid()}
    for thread in threading.enumerate():
        if (
            thread.ident in slots
            or thread.name.startswith("millpond")
            or thread is threading.current_thread()
        ):
            own.add(thread.native_id or 0)
    return any(int(task.name) not in own and _is_runnable(task) for task in Path("/proc/self/task").iterdir())


def child_pids(tid: int | None = None) -> list[int]:
    """Return the pids of the child processes of this process, or of those that one of its threads started."""
    tasks = Path("/proc/self/task")
    return _children_of(tasks) if tid is None else _children_of_thread(tasks / str(tid))


def _is_runnable(task: Path) -> bool:
    """True if a process or thread of /proc is on a processor, or waits for one."""
    with suppress(OSError, IndexError):
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    return False


def _children_of(tasks: Path) -> list[int]:
    """Return the process ids of the child programs of a process, by the folder of its threads."""
    with suppress(OSError):
        return [pid for thread in tasks.iterdir() for pid in _children_of_thread(thread)]
    return []


def _children_of_thread(thread: Path) -> list[int]:
    """Return the process ids of the child programs that a thread has started."""
    with suppress(OSError):
        return [int(pid) for pid in (thread / "children").read_text().split()]
    return []


def _disk_name(fd: int) -> str:
    """Return the name of the disk of an open file, by the folder of its mount, or "" if it is no file."""
    path = Path(_file_path(fd))
    if not path.is_absolute():
        return ""
    return f"the disk of {next(folder for folder in (path, *path.parents) if os.path.ismount(folder))}"


def _file_path(fd: int) -> str:
    """Return the path of an open file, or the kernel's description (`socket:[1]`). "" if it is not known."""
    with suppress(OSError):
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    return ""


def _awaited_descriptors(call: str, arguments: list[int]) -> list[int]:
    """Return the descriptors for which a `poll`, `select` or `epoll` with these arguments waits.

    They are read from the memory of this process, those of `epoll` from /proc. [] if they cannot be read.
    """
    with suppress(OSError, ValueError, struct.error):
        if call == "epoll":
            numbers = re.findall(
                r"^tfd:\s+(\d+)", Path(f"/proc/self/fdinfo/{arguments[0]}").read_text(), re.M
            )
            return [int(number) for number in numbers]
        if call == "poll":
            count = min(arguments[1], 64)
            return [fd for fd, _, _ in _POLLFD.iter_unpack(_read_memory(arguments[0], count * _POLLFD.size))]
        size = (arguments[0] + 7) // 8  # the bytes of a set of descriptors, one bit for each
        bits = b"".join(_read_memory(address, size) for address in arguments[1:3] if address)
        return [n % (8 * size) for n in range(8 * len(bits)) if bits[n // 8] >> n % 8 & 1]
    return []


def _read_memory(address: int, size: int) -> bytes:
    """Return bytes of this process's memory. Raises `OSError` for an address that is not mapped any more."""
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    try:
        return os.pread(memory, size, address)
    finally:
        os.close(memory)


def _likeliest_activity(descriptors: list[int]) -> Activity:
    """Return the activity of a thread that waits for several descriptors.

    It is a wait for the first peer with a name, else for the first peer, else for the first descriptor.
    """
    waits = [_activity_at_descriptor(fd) for fd in descriptors]
    peers = [wait for wait in waits if wait.category == "peer"]
    # An event loop also waits for a socket of its own, without a name, by which threads wake it.
    named_peers = (wait for wait in peers if wait.name != UNNAMED)
    return next(named_peers, next(iter(peers or waits), Activity("unknown")))


def _activity_of_idle_loop(timeout: int) -> Activity:
    """Return the activity of an event loop that waits for nothing but the socket by which threads wake it.

    It sleeps if a timer is due soon. `timeout` is in milliseconds, -1 for none, as the kernel has it.
    """
    return Activity("sleep" if timeout & _UNSIGNED < TIMER_MS else "thread")


def _activity_at_descriptor(fd: int) -> Activity:
    """Return the activity of a thread that waits for a descriptor.

    A socket and a named pipe lead to a peer, a pipe to a child process (standard output and standard error to
    a peer), and an eventfd to another thread. All others are files.
    """
    path = _file_path(fd)
    if path.startswith("pipe:"):
        return Activity("peer", _OUTPUTS[fd]) if fd in _OUTPUTS else Activity("child")
    if path == "anon_inode:[eventfd]":
        return Activity("thread")
    if path.startswith("socket:"):
        return _activity_at_socket(fd)
    with suppress(OSError):  # a folder on its path may be closed to this user
        if Path(path).is_fifo():
            return Activity("peer", path)
    return Activity("file", _disk_name(fd)) if path else Activity("unknown")


def _activity_at_socket(fd: int) -> Activity:
    """Return the activity of waiting for a socket: its peer, `host:port` or a path, and the round trips."""
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as copy:
        address = copy.getpeername()
        if isinstance(address, tuple):
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            return Activity("peer", f"{host}:{address[1]}", trips=_read_round_trips(copy))
        name = address.decode(errors="replace") if isinstance(address, bytes) else address
        return Activity("peer", name or UNNAMED)
    return Activity("peer", _unconnected_peer_name(fd))


def _unconnected_peer_name(fd: int) -> str:
    """Return the name for what a socket without a peer waits for.

    It is the address to which an IPv4 socket is connecting, or else a description.
    """
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as copy:
        if copy.type == socket.SOCK_DGRAM:
            return "an answer by UDP"
        number = str(os.fstat(fd).st_ino)
        if copy.family == socket.AF_INET:
            for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]:
                fields = line.split()
                remote_address, inode = fields[2], fields[9]
                if inode == number:
                    host, port = remote_address.split(":")
                    address = socket.inet_ntoa(struct.pack("=I", int(host, 16)))
                    return f"{address}:{int(port, 16)}"
    return "a connection that is being made"


def _read_round_trips(connection: socket.socket) -> RoundTrips | None:
    """Return the round trips of a TCP connection: the fewer of segments with data in and out.

    Source: `struct tcp_info` of Linux 4.6 and newer.
    """
    with suppress(OSError, AttributeError, struct.error):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
        received, sent = struct.unpack_from("II", info, 152)
        [waited_ms] = struct.unpack_from("I", info, 44)
        return RoundTrips(os.fstat(connection.fileno()).st_ino, min(received, sent), waited_ms)
    return None


def _activity_at_futex(address: int) -> Activity:
    """Return the activity of waiting for a lock: the interpreter's, one of a C library, or another one."""
    library = next((name for low, high, name in data_of_libraries() if low <= address < high), "")
    if "python" in library:
        return Activity("interpreter")
    # The name of a library in a wheel ends with a hash: libscipy_openblas64_-32a4b2a6.so
    name = library.partition(".so")[0].partition("-")[0].rstrip("_")
    return Activity("lock", f"a lock of {name}" if name else "")

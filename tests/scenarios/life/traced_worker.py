"""Run one worker process that records every call of our own code, in all its threads and children.

tests/scenarios/life/__main__.py starts it, with the file to write to and the arguments of a worker process.
Calls are kept in memory, and a thread writes them to the file.

Under a profile, or on a busy or slow machine, a task takes many times as long. Actions of a worker that
depend on time (outcomes wait five milliseconds for others, tasks of less than five milliseconds share a
child) would then be done for fewer tasks at once, and the counts would depend on the machine. So these times
are `STRETCH` times as long here.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

#: The folders of our own code.
OWN = ("broker", "tasks", "producer", "worker", "monitor")

#: The beginning of the names of our own threads, which are not counted: they work by the clock, without a
#: task.
ASIDE = "millpond-"

#: The seconds between two writes of recorded calls.
WRITE_SECONDS = 0.02

#: The factor by which the times are longer in which a worker gathers outcomes and tasks.
STRETCH = 20

#: The checkout.
ROOT = Path(__file__).resolve().parents[3]


class Trace:
    """Records the calls of this process, and writes them to a file."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._noted: list[tuple[str, CodeType]] = []
        self._known: dict[CodeType, str] = {}
        self._is_over = threading.Event()

    def start(self) -> None:
        """Start the thread that writes, in this process and in each child that it forks."""
        self._write_now_and_then()
        os.register_at_fork(after_in_child=self._start_in_child)

    def stop(self) -> None:
        """Stop the thread, write the rest, and close the file."""
        self._is_over.set()
        self._writer.join()  # it may be about to write
        self._write()
        os.close(self._file)

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        """Set the profile function of the calling thread, which records its calls from this one on."""
        name = threading.current_thread().name
        own = (lambda *_: None) if name.startswith(ASIDE) else self._profile_of(name)
        sys.setprofile(own)
        own(frame, event, arg)

    def _profile_of(self, thread: str) -> Callable[[FrameType, str, Any], None]:
        known, note = self._known, self._noted.append

        def profile(frame: FrameType, event: str, _arg: Any) -> None:
            if event == "call":
                code = frame.f_code
                own = known.get(code)
                if own is None:
                    own = known[code] = _own_file(code.co_filename)
                if own:
                    note((thread, code))

        return profile

    def _start_in_child(self) -> None:
        if not self._is_over.is_set():
            self._noted.clear()  # its parent writes them
            self._write_now_and_then()

    def _write_now_and_then(self) -> None:
        def write() -> None:
            while not self._is_over.wait(WRITE_SECONDS):
                self._write()

        self._writer = threading.Thread(target=write, name=f"{ASIDE}trace", daemon=True)
        self._writer.start()

    def _write(self) -> None:
        noted = self._noted[:]
        del self._noted[: len(noted)]
        pid, known = os.getpid(), self._known
        lines = [f"{pid}:{thread}\t{known[code]}\t{code.co_name}\n" for thread, code in noted]
        if lines:
            os.write(self._file, "".join(lines).encode())


def _own_file(name: str) -> str:
    path = Path(name).resolve()
    inside = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
    return "/".join(inside) if inside and inside[0] in OWN else ""


@contextmanager
def trace_into(file: Path) -> Iterator[None]:
    """Append a line to `file` for each call of our own code in a block, also in new threads and children."""
    trace = Trace(file)
    trace.start()
    threading.setprofile(trace.profile)
    sys.setprofile(trace.profile)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        trace.stop()


def stretch() -> None:
    """Multiply the times by `STRETCH`. Call this before modules are imported that copy them."""
    from millpond.broker.consume import fetch_call

    fetch_call.GATHERED_SECONDS *= STRETCH

    from millpond.broker.consume import prefetch, watcher
    from millpond.worker.dispatch import chunks

    for module, names in (
        (chunks, ("SHORT_SECONDS", "LONG_SECONDS")),
        (prefetch, ("SOON_SECONDS", "COUNTED_SECONDS", "STOOD_SECONDS", "WAITED_SECONDS", "AGAIN_SECONDS")),
        (watcher, ("SHORTEST_PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS")),
    ):
        for name in names:
            setattr(module, name, STRETCH * getattr(module, name))


if __name__ == "__main__":
    stretch()

    from millpond.worker.process import main

    with trace_into(Path(sys.argv.pop(1))):
        main()

"""Run one worker process that writes down every call of our own code, in all its threads and children.

Started by tests/scenarios/life/__main__.py, with the file to write into and the words of a worker. A call is
noted in memory, and a thread writes the notes down.

Under a profile, on a busy machine or a slow one a task takes many times as long. A worker's timed actions
(outcomes wait five milliseconds for others, tasks below five milliseconds go to a child together) would come
to a larger part of a task's life, and the count would depend on the machine: so these times are `STRETCH`
times as long here.
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

#: Our own threads, by their names: they report by the clock, whether or not a task is there.
ASIDE = "millpond-"

#: Seconds between the writing of notes.
WRITE_SECONDS = 0.02

#: How much longer the times are by which a worker gathers outcomes and tasks.
STRETCH = 20

#: The checkout.
ROOT = Path(__file__).resolve().parents[3]


class Trace:
    """The calls of this process that were noted and not written yet."""

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._noted: list[tuple[str, CodeType]] = []
        self._known: dict[CodeType, str] = {}
        self._is_over = threading.Event()

    def start(self) -> None:
        """Begin to write, in this process and in each child."""
        self._write_now_and_then()
        os.register_at_fork(after_in_child=self._start_in_child)

    def stop(self) -> None:
        """Write the rest."""
        self._is_over.set()
        self._writer.join()  # it may be about to write
        self._write()
        os.close(self._file)

    def profile(self, frame: FrameType, event: str, arg: Any) -> None:
        """Note the calls of the thread that comes here first, from its first call on."""
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
    """Append a line to `file` for each call of our own code in a block, in its threads and children too."""
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
    """Stretch the times, before modules that take them over are imported."""
    from millpond.broker.consume import next_request

    next_request.GATHERED_SECONDS *= STRETCH

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

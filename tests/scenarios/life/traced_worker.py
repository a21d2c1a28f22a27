"""Run one worker process that writes down every call of our own code, in all its threads and children.

Started by tests/scenarios/life/__main__.py, with the file to write into and the words of a worker.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

#: The folders whose code is ours.
OWN = ("broker", "tasks", "producer", "worker", "monitor")

#: Our own threads, by their names: they report by the clock, whether or not a task is there.
ASIDE = "millpond-"


@contextmanager
def trace_into(file: Path) -> Iterator[None]:
    """Append a line to `file` for each call of our own code in a block, in its threads and children too."""
    out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    root = Path(__file__).resolve().parents[3]
    known: dict[str, str] = {}

    def own_file(name: str) -> str:
        path = Path(name).resolve()
        inside = path.relative_to(root).parts if path.is_relative_to(root) else ()
        return "/".join(inside) if inside and inside[0] in OWN else ""

    def on_event(frame: FrameType, event: str, _arg: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename not in known:
            known[code.co_filename] = own_file(code.co_filename)
        own = known[code.co_filename]
        thread = threading.current_thread().name
        if own and not thread.startswith(ASIDE):
            os.write(out, f"{os.getpid()}:{thread}\t{own}\t{code.co_name}\n".encode())

    threading.setprofile(on_event)
    sys.setprofile(on_event)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
        os.close(out)


if __name__ == "__main__":
    from millpond.worker.process import main

    with trace_into(Path(sys.argv.pop(1))):
        main()

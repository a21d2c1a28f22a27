"""Run the process that renders templates (`template_engine.py`), one for each worker process."""

import atexit
import json
import signal
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any

from millpond.tasks.email import template_engine
from millpond.tasks.errors import BadInput, FinalError, RetryLater
from millpond.tasks.process.one_per_process import one_per_process

#: Exit codes after a signal that no rendering causes, so another run may succeed.
_KILLED_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)


class TemplateProcess:
    """Renders one template at a time, in a process that is started when it is needed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def render(
        self, name: str, source: str | None, values: dict[str, Any], *, html: bool, folder: Path | None
    ) -> str | None:
        """Return the rendered text of a template: `source`, or else the file `name` in the folder.

        Return None if there is no such file. With `html`, values are escaped.

        Raises `BadInput` with the reason, and `RetryLater` if the process was killed from outside.
        """
        request = {"name": name, "source": source, "values": list(values.items()), "html": html}
        line = json.dumps(request | {"folder": folder and str(folder)}).encode() + b"\n"
        with self._lock:
            reply = json.loads(self._exchange_request(line))
        if "error" in reply:
            raise BadInput(_describe_fault(name, reply))
        return None if reply["text"] is None else str(reply["text"])

    def stop(self) -> None:
        """End the process, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _exchange_request(self, request: bytes) -> bytes:
        """Write a request to the process, and return its reply. Raises an error if the process ends."""
        child = self._start_if_needed()
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(request)
            child.stdin.flush()
            line = child.stdout.readline()
        except BrokenPipeError:
            line = b""
        except BaseException:  # as a time limit: the late reply must not be read as that of the next request
            self.stop()
            raise
        if not line.endswith(b"\n"):
            raise self._exit_error(child)
        return line

    def _start_if_needed(self) -> "subprocess.Popen[bytes]":
        """Return the running process. Start one if there is none."""
        if self._child is None or self._child.poll() is not None:
            self.stop()
            self._child = subprocess.Popen(
                # -P: modules beside the program cannot hide those of the standard library.
                [sys.executable, "-P", template_engine.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        return self._child

    def _exit_error(self, child: "subprocess.Popen[bytes]") -> FinalError | RetryLater:
        """Return the error for the end of the process: a limit of time or memory, or a kill from outside."""
        code = child.wait()
        self.stop()
        if code in _KILLED_FROM_OUTSIDE:
            return RetryLater("the process that renders templates was killed")
        if code == -signal.SIGPROF:
            return BadInput(f"its rendering takes over {template_engine.CPU_SECONDS:g} s")
        memory = template_engine.MEMORY_BYTES // 1024**2
        return BadInput(f"its rendering takes over {memory} MiB, or breaks the template engine")


def _describe_fault(name: str, reply: dict[str, Any]) -> str:
    """Return the reason for which a template failed, with the line and another file if they are known."""
    if reply["kind"] == "OutOfFuel":
        return "its rendering takes too many operations or makes too much text: loop over less"
    file = reply.get("file")
    place = [f"of {file}"] if file not in (None, name) else []
    place += [f"line {reply['line']}"] if reply.get("line") else []
    return f"{' '.join(place)}: {reply['error']}" if place else str(reply["error"])


@one_per_process
def template_process() -> TemplateProcess:
    """Return the template process of this worker process, which is stopped when this process ends."""
    process = TemplateProcess()
    atexit.register(process.stop)
    return process

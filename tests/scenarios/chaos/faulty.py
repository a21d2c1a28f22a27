"""Kill a process once, exactly between two steps of its work. The production code has no fault points.

`CHAOS_WINDOW` names the window, `CHAOS_ONCE` a file that is created at the kill. If the file exists, no
process is killed. Workers: `celery -A tests.scenarios.chaos.faulty:pond worker`, or `…:stock`. Producers:
`python -m tests.scenarios.chaos.faulty pond ID RETRIES`.
"""

import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pkgutil import resolve_name
from typing import Any

WINDOW_VARIABLE, ONCE_VARIABLE = "CHAOS_WINDOW", "CHAOS_ONCE"

Condition = Callable[..., bool]


def always(*_: Any, **__: Any) -> bool:
    """True for every call."""
    return True


def die_once() -> None:
    """Kill this process with SIGKILL, unless a process was killed before: the file of `CHAOS_ONCE` exists."""
    try:
        os.close(os.open(os.environ[ONCE_VARIABLE], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, condition: Condition = always) -> None:
    """Die at the call of `owner.name` for which the condition holds."""
    step = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        if condition(*args, **kwargs):
            die_once()
        return step(*args, **kwargs)

    setattr(owner, name, dying)


def after(owner: Any, name: str, condition: Condition = always) -> None:
    """Die when a call of `owner.name` for which the condition holds has done its work, before it returns."""
    step = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        answer = step(*args, **kwargs)
        if condition(*args, **kwargs):
            die_once()
        return answer

    setattr(owner, name, dying)


def open_window(transport: str) -> None:
    """Install the fault point of the window that the environment names."""
    window = os.environ.get(WINDOW_VARIABLE)
    if window:
        from tests.scenarios.chaos.windows import WINDOWS

        die_at, path, condition = WINDOWS[transport, window]
        module, _, names = path.partition(":")
        owner, _, name = names.rpartition(".")
        die_at(resolve_name(f"{module}:{owner}"), name, condition)


def __getattr__(name: str) -> Any:
    if name not in ("pond", "stock"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    open_window(name)
    if name == "stock":
        from tests.scenarios.chaos.stock import app
    else:
        from millpond.worker.app import app
    return app


def send(transport: str, id: str, retries: str = "0") -> None:
    """Send one task, as a producer that may send it again after a lost reply."""
    open_window(transport)
    if transport == "stock":
        from tests.scenarios.chaos.stock import app

        app.send_task("chaos.work", kwargs={"n": 1, "retries": int(retries)}, task_id=id, queue="chaos")
        return
    from millpond import Client
    from tests.scenarios.chaos.kinds import Work

    with Client() as client:
        # Sent again after an error, it may have run by then: the claim must outlast the task.
        client.send(Work(n=1, retries=int(retries)), id=id, once=id, for_=timedelta(hours=1))


if __name__ == "__main__":
    send(*sys.argv[1:])

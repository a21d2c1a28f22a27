"""Run a task in its slot, a thread or a child of the pool, and answer for it whatever happens."""

import json
import threading
import time
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.app import trace
from celery.app.task import Context

from millpond.worker.report.slot_sampler import RUNNING
from millpond.worker.report.tracing import running

#: What a body returned is kept in a batch's results up to this many characters of JSON.
RESULT_LENGTH = 65_536

#: What is answered for a task that was not started: the pool drains, or the message is another's now.
NOT_STARTED = "not started"

#: What of a message's headers Celery does not count among a task's own.
_CELERYS_HEADERS = frozenset((*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"))

#: Failed, what came of it, seconds it took, and seconds of them on a processor.
Answer = tuple[int, Any, float, float]
SECONDS = 2


def run(name: str, id: str, request: dict[str, Any], body: Any) -> Answer:
    """Run a task; what comes of it is (what to keep, what to show), or else an ExceptionInfo.

    Unlike Celery's, it answers whatever the body raised: a slot is never lost.
    """
    tasks, _accept, hostname = trace._localized
    clock = time.process_time if threading.current_thread() is threading.main_thread() else time.thread_time
    began, used = time.monotonic(), clock()
    RUNNING[threading.get_ident()] = name
    try:
        args, kwargs, embed = body
        request.update(
            {"args": args, "kwargs": kwargs, "hostname": hostname, "is_eager": False}, **embed or {}
        )
        if request.get("headers") is None:  # Celery looks for sixty names in each request to find the same
            request["headers"] = {each: request[each] for each in request.keys() - _CELERYS_HEADERS} or None
        with running(name, id, request, body) as traced:
            returned, info, seconds, shown = tasks[name].__trace__(id, args, kwargs, request)
            # What went wrong outside the body has no info: arguments that are none, a signal's receiver.
            if info or isinstance(returned, ExceptionInfo):
                traced.fail(returned.exception)
                return 1, returned, _since(began), clock() - used
        return 0, (_kept(request, returned), shown), seconds, clock() - used
    except Exception:
        return 1, ExceptionInfo(), _since(began), clock() - used
    finally:
        RUNNING.pop(threading.get_ident(), None)


def _since(began: float) -> float:
    """Return the seconds since then; Celery tells them of what ended well alone."""
    return time.monotonic() - began


def _kept(request: dict[str, Any], returned: Any) -> str | None:
    """Return the JSON of what a body returned, for a task of a batch; nobody asks for the others'."""
    own = request.get("millpond")
    if not isinstance(own, dict) or not own.get("batch"):
        return None
    text = json.dumps({"value": returned}, separators=(",", ":"))
    if len(text) > RESULT_LENGTH:
        raise ValueError(
            f"the result is {len(text)} characters of JSON and at most {RESULT_LENGTH} are kept: "
            "store it elsewhere and return where"
        )
    return text

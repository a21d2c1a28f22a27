"""Celery's, kombu's and billiard's private names: all in broker/celery, and each as it is assumed to be.

A failure names the assumption that broke when a version moved. CI runs this file against the newest releases
too, which fails no build.
"""

import ast
import importlib
import inspect
import re
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
ROOM = ROOT / "broker" / "celery"
FOREIGN = ("celery", "kombu", "billiard")
FOLDERS = ("broker", "tasks", "producer", "worker", "monitor")


def files(*, in_room: bool) -> list[Path]:
    """Return our files, those of the room or the others."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if path.is_relative_to(ROOM) == in_room]


def is_private(name: str) -> bool:
    """True for `_name`, and not for `__name__`."""
    return name.startswith("_") and not name.endswith("__") and name != "_"


def foreign_names(tree: ast.Module) -> set[str]:
    """Return the names that a module imports from Celery, kombu or billiard."""
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FOREIGN:
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(
                (alias.asname or alias.name).split(".")[0]
                for alias in node.names
                if alias.name.split(".")[0] in FOREIGN
            )
    return names


def imported_privates(tree: ast.Module) -> Iterator[str]:
    """Yield the private names and modules that are imported from Celery, kombu or billiard."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FOREIGN:
            for part in (*(node.module or "").split("."), *(alias.name for alias in node.names)):
                if is_private(part):
                    yield part


def outer_privates(tree: ast.Module) -> Iterator[str]:
    """Yield private attributes of anything but `self` and `cls`, and names in strings of getattr."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "setattr", "hasattr"):
            for argument in node.args[1:2]:
                if isinstance(argument, ast.Constant) and is_private(str(argument.value)):
                    yield str(argument.value)


def inherited_privates(module: Any, tree: ast.Module) -> Iterator[str]:
    """Yield private names that a class of ours defines or uses and has of a class of Celery's or kombu's."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or not inspect.isclass(
            found := getattr(module, node.name, None)
        ):
            continue
        foreign = [each for each in found.__mro__ if each.__module__.split(".")[0] in FOREIGN]
        theirs = {name for each in foreign for name in (*vars(each), *getattr(each, "__slots__", ()))}
        for used in ast.walk(node):
            name = used.attr if isinstance(used, ast.Attribute) else getattr(used, "name", None)
            if isinstance(name, str) and is_private(name) and name in theirs:
                yield f"{found.__name__}.{name}"


@pytest.mark.parametrize("path", files(in_room=False), ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_are_touched_in_one_room(path: Path) -> None:
    """Private names of Celery, kombu and billiard stand in broker/celery alone."""
    tree = ast.parse(path.read_text())
    if not foreign_names(tree) and "broker.celery" not in path.read_text():
        return
    module = importlib.import_module(".".join(("millpond", *path.relative_to(ROOT).with_suffix("").parts)))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assigned = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    touched = {
        *imported_privates(tree),
        *(name for name in outer_privates(tree) if name not in own | assigned),
    }
    touched |= set(inherited_privates(module, tree))
    assert not touched - ALLOWED, f"move what touches these into {ROOM.relative_to(ROOT)}/"


#: Python's own, which look like them.
ALLOWED = {"_exit", "_current_frames"}


#: The room's assumptions: the name, and the file that gives the reason.
ASSUMED: dict[str, str] = {
    "celery._state:_task_stack.push": "task_tracer",
    "celery._state:_task_stack.pop": "task_tracer",
    "celery.app.trace:_localized": "task_tracer",
    "celery.concurrency.asynpool:_get_job_writer": "prefork_pool",
    "celery.concurrency.asynpool:AsynPool._event_process_exit": "child_watch",
    "celery.concurrency.asynpool:AsynPool._track_child_process": "child_watch",
    "celery.concurrency.asynpool:AsynPool._on_soft_timeout": "child_watch",
    "celery.concurrency.asynpool:AsynPool._on_hard_timeout": "child_watch",
    "celery.concurrency.asynpool:ResultHandler._flush_outqueue": "prefork_pool",
    "celery.concurrency.prefork:TaskPool.Pool": "child_watch",
    "celery.worker.consumer.consumer:CANCEL_TASKS_BY_DEFAULT": "consumer",
    "celery.worker.request:Request._announce_revoked": "request",
    "celery.worker.request:Request._already_revoked": "request",
    "celery.worker.request:Request._already_cancelled": "request",
    "celery.worker.request:Request._terminate_on_ack": "request",
    "celery.worker.request:Request._context": "request",
    "celery.worker.state:active_requests.discard": "request",
    "celery.worker.state:all_total_count": "request",
    "celery.worker:WorkController._process_task": "prefork_pool",
    "kombu.asynchronous.semaphore:LaxBoundedSemaphore": "prefork_pool",
    "kombu.transport.redis:Channel._create_client": "transport",
    "kombu.transport.redis:Channel._put": "transport",
    "kombu.transport.redis:Channel._get": "transport",
    "kombu.transport.redis:Channel._purge": "transport",
    "kombu.transport.redis:Channel._queue_bind": "transport",
    "kombu.transport.redis:Channel._basic_cancel": "transport",
    "kombu.transport.redis:Channel._get_message_priority": "transport",
    "kombu.transport.redis:MultiChannelPoller._register_BRPOP": "poller",
    "kombu.transport.redis:MultiChannelPoller._register_LISTEN": "poller",
    "kombu.transport.redis:MultiChannelPoller._client_registered": "poller",
    "kombu.transport.redis:MultiChannelPoller._register": "poller",
    "kombu.transport.virtual:Transport._deliver": "transport",
    "kombu.transport.virtual:Transport._reject_inbound_message": "transport",
}


@pytest.mark.parametrize("assumed", list(ASSUMED))
def test_a_private_name_is_there(assumed: str) -> None:
    """Each name that the room touches exists, where it is looked for."""
    module, _, path = assumed.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        assert hasattr(found, name), f"{assumed} is gone: see broker/celery/{ASSUMED[assumed]}.py"
        found = getattr(found, name)


def test_celerys_request_is_made_of_what_ours_sets() -> None:
    """Celery's request keeps these attributes; ours sets or computes each that its methods ask for."""
    from celery.worker.request import Request

    from millpond.broker.celery.request import DeliveryRequest

    kept = set(re.findall(r"self\.(_\w+)", inspect.getsource(Request.__init__)))
    ours = inspect.getsource(DeliveryRequest)
    #: Attributes read only by methods that ours replaces: `execute`, `execute_using_pool`, `acknowledge`,
    #: `reject`.
    unused = {"_utc", "_body", "_decoded", "_content_type", "_content_encoding", "_on_ack", "_on_reject"}
    unused |= {"_connection_errors", "__payload"}
    assert not {name for name in kept if name not in ours} - unused


def test_the_tracer_returns_what_the_slot_reads() -> None:
    """The value or an ExceptionInfo, then the state with the error."""
    from celery.app.trace import TraceInfo, trace_ok_t

    assert trace_ok_t._fields == ("retval", "info", "runtime", "retstr")
    assert {"state", "retval"} <= set(TraceInfo.__slots__)
    assert "__trace__" in inspect.getsource(importlib.import_module("celery.worker.consumer.consumer"))


def test_a_poller_knows_its_channels_and_their_descriptors() -> None:
    """Each is asked for its fetcher before every poll; a reply is passed on by its descriptor."""
    from kombu.transport.redis import MultiChannelPoller

    poller = MultiChannelPoller()
    assert (list(poller._channels), poller._fd_to_chan) == ([], {})


def test_a_semaphore_keeps_what_waits_as_callback_and_arguments() -> None:
    """Tasks that wait for a slot are taken from its deque, and put before it."""
    from kombu.asynchronous.semaphore import LaxBoundedSemaphore

    semaphore = LaxBoundedSemaphore(1)
    semaphore.acquire(print, 1)
    semaphore.acquire(print, 2)
    assert list(semaphore._waiting) == [(print, (2,), {})]
    assert semaphore.initial_value == 1


def test_a_task_that_was_sent_to_a_child_has_started() -> None:
    """Celery notes the start later, when it reads the child's word; a task that waits has not started."""
    from billiard.pool import ApplyResult
    from celery.worker import request, state

    from millpond.broker.celery.settling import find_started_tags

    class Reserved:
        def __init__(self, tag: str, result: Any) -> None:
            self.message = SimpleNamespace(delivery_tag=tag)
            self._apply_result = result

    sent = ApplyResult({}, None)
    requests = [Reserved("sent", weakref.ref(sent)), Reserved("waits", None)]
    for each in requests:
        state.reserved_requests.add(each)
    assert find_started_tags() == {"sent"}
    assert request.Request._apply_result is None
    assert "self._apply_result = " in inspect.getsource(request.Request.execute_using_pool)
    assert "self._apply_result = " in inspect.getsource(request.create_request_cls)


def test_a_prefork_pool_has_the_pipes_that_the_drain_sees_to() -> None:
    """The sets of pipes, jobs and writers that broker/celery/prefork_pool.py looks into."""
    from celery.concurrency import asynpool

    source = inspect.getsource(asynpool)
    for name in (
        "_all_inqueues",
        "_active_writes",
        "_busy_workers",
        "_active_writers",
        "_flush_writer",
        "_fileno_to_outq",
        "_result_handler",
        "outbound_buffer",
        "_cache",
        "_write_to",
        "_sentinel_poll",
    ):
        assert name in source, f"{name} is gone from asynpool: see broker/celery/prefork_pool.py"

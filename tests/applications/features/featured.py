"""The application that tries the features: tasks of every kind, signals, commands and steps of its own."""

import os
import signal
import time
from typing import Any

import redis
from celery import Celery, Task, bootsteps, shared_task, signals
from celery.contrib.abortable import AbortableTask
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from celery.utils.log import get_task_logger
from celery.worker.control import control_command, inspect_command
from kombu import Exchange, Queue
from kombu.common import Broadcast
from pydantic import BaseModel

app = Celery("featured", broker=os.environ["APP_BROKER"], backend=os.environ["APP_RESULTS"])
app.conf.update(
    accept_content=["json", "pickle", "yaml"],
    result_accept_content=["json", "pickle", "yaml"],
    result_extended=True,
    worker_prefetch_multiplier=1,
    task_queues=[
        Queue("celery", routing_key="celery"),
        Queue("second", routing_key="second"),
        Queue("media", Exchange("media", type="topic"), routing_key="media.#"),
        Broadcast("everybody"),
    ],
    task_default_exchange_type="direct",
    task_routes={"routed": {"queue": "second"}},
    task_annotations={"annotated": {"max_retries": 7}},
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    beat_schedule={"tick": {"task": "noted", "schedule": 1.0, "args": ("beat", "tick")}},
)

_notes = redis.Redis.from_url(os.environ["APP_RESULTS"], decode_responses=True)
logger = get_task_logger(__name__)


def note(place: str, what: object) -> None:
    """Append to a list that the client can read."""
    _notes.rpush(f"notes:{place}", str(what))


def notes(place: str) -> list[str]:
    """Return the notes at a place."""
    found: Any = _notes.lrange(f"notes:{place}", 0, -1)
    return list(found)


def notes_when(place: str, number: int, seconds: float = 90) -> list[str]:
    """Return the notes at a place, once there are so many."""
    deadline = time.monotonic() + seconds
    while len(notes(place)) < number and time.monotonic() < deadline:
        time.sleep(0.05)
    return notes(place)


@app.on_after_finalize.connect
def finalized(sender: Any, **kwargs: Any) -> None:
    note("signal on_after_finalize", "sent")


# Tasks


@app.task(name="add")
def add(x: Any, y: Any) -> Any:
    return x + y


@app.task(name="total")
def total(numbers: list[int]) -> int:
    return sum(numbers)


@app.task(name="echo")
def echo(*args: Any, **kwargs: Any) -> Any:
    return [list(args), kwargs]


@app.task(name="noted")
def noted(place: str, what: Any) -> Any:
    note(place, what)
    return what


@app.task(name="sleep")
def sleep(seconds: float, place: str = "slept", what: Any = None) -> float:
    note(place, what)
    time.sleep(seconds)
    return seconds


@app.task(name="held")
def held(place: str, *args: Any) -> None:
    """Occupy a slot until it is told to go."""
    note(place, "run")
    notes_when(f"{place} go", 1, 300)


@app.task(name="fail")
def fail(text: str = "on purpose") -> None:
    raise ValueError(text)


@app.task(name="expected", throws=(KeyError,))
def expected() -> None:
    raise KeyError("expected")


@app.task(name="request", bind=True)
def request(self: Task, *fields: str) -> Any:
    found = {field: self.request.get(field) for field in fields}
    return {
        key: value if isinstance(value, dict | list | int | None) else str(value)
        for key, value in found.items()
    }


@app.task(name="route", bind=True)
def route(self: Task) -> list[Any]:
    info = self.request.delivery_info
    return [
        info.get("exchange"),
        info.get("routing_key"),
        info.get("priority"),
        bool(info.get("redelivered")),
    ]


@app.task(name="retried", bind=True, max_retries=3)
def retried(self: Task, times: int, countdown: float = 0.1) -> int:
    if self.request.retries < times:
        raise self.retry(countdown=countdown)
    return int(self.request.retries)


@app.task(name="retried_with", bind=True)
def retried_with(self: Task, x: int) -> int:
    if self.request.retries == 0:
        raise self.retry(args=(x + 1,), countdown=0.1)
    return x


@app.task(name="exhausted", bind=True, max_retries=1)
def exhausted(self: Task, plain: bool = False) -> None:
    if plain:
        raise self.retry(countdown=0.1)
    raise self.retry(exc=ValueError("still"), countdown=0.1)


@app.task(
    name="auto", bind=True, autoretry_for=(OSError,), retry_backoff=0.1, retry_jitter=False, max_retries=2
)
def auto(self: Task, times: int) -> int:
    if self.request.retries < times:
        raise OSError("again")
    return int(self.request.retries)


@app.task(name="rejected", bind=True, acks_late=True)
def rejected(self: Task, place: str, requeue: bool) -> str:
    note(place, "run")
    if len(notes(place)) < 2 or not requeue:
        raise Reject("no", requeue=requeue)
    return "second time"


@app.task(name="ignored")
def ignored(place: str) -> None:
    note(place, "run")
    raise Ignore


@app.task(name="replaced", bind=True)
def replaced(self: Task, x: int) -> Any:
    raise self.replace(add.s(x, 100))


@app.task(name="replaced_by_chord", bind=True)
def replaced_by_chord(self: Task, n: int) -> Any:
    from celery import chord

    raise self.replace(chord([add.s(each, each) for each in range(n)], total.s()))


@app.task(name="added_to_chord", bind=True)
def added_to_chord(self: Task, x: int) -> Any:
    self.add_to_chord(add.si(x, 1000))
    return x


@app.task(name="progress", bind=True)
def progress(self: Task, place: str) -> str:
    self.update_state(state="HALF", meta={"done": 1})
    while "go" not in notes(place):
        time.sleep(0.05)
    return "whole"


@app.task(name="started", track_started=True)
def started(place: str) -> str:
    while "go" not in notes(place):
        time.sleep(0.05)
    return "done"


@app.task(name="without_result", ignore_result=True)
def without_result(place: str) -> int:
    note(place, "run")
    return 7


class Hooked(Task):
    """A base class with every hook."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        note(args[0], "before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        note(args[0], f"on_success {retval}")

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(args[0], f"on_failure {exc}")

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        note(args[0], f"on_retry {exc}")

    def after_return(
        self, status: Any, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        note(args[0], f"after_return {status}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        note(args[0], "call")
        return super().__call__(*args, **kwargs)


@app.task(name="hooked", base=Hooked, bind=True, max_retries=1)
def hooked(self: Task, place: str, end: str) -> str:
    if end == "fail":
        raise ValueError("hooked")
    if end == "retry" and self.request.retries == 0:
        raise self.retry(exc=ValueError("hooked"), countdown=0.1)
    return "fine"


def _own_request() -> type:
    from celery.worker.request import Request

    class Noting(Request):  # type: ignore[misc]
        def on_failure(self, *args: Any, **kwargs: Any) -> Any:
            note("own request", f"{self.name} on_failure")
            return super().on_failure(*args, **kwargs)

    return Noting


class WithRequest(Task):
    """A base class that names a request class of its own."""

    abstract = True
    Request = _own_request()


@app.task(name="own_request", base=WithRequest)
def own_request() -> None:
    raise ValueError("for the request")


@app.task(name="limited_rate", rate_limit="2/s")
def limited_rate(place: str) -> None:
    note(place, time.time())


@app.task(name="limited", time_limit=1)
def limited() -> None:
    time.sleep(60)


@app.task(name="limited_softly", soft_time_limit=2)
def limited_softly() -> str:
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return "cleaned up"
    return "not stopped"


@app.task(name="early", acks_late=False)
def early(x: int) -> int:
    return x


@app.task(name="late", acks_late=True)
def late(x: int) -> int:
    return x


@app.task(name="dies", bind=True, acks_late=False)
def dies(self: Task, place: str) -> str:
    note(place, "run")
    os.kill(os.getpid(), signal.SIGKILL)
    return "unreachable"


@app.task(name="dies_by_default", bind=True)
def dies_by_default(self: Task, place: str) -> str:
    note(place, "run")
    os.kill(os.getpid(), signal.SIGKILL)
    return "unreachable"


@app.task(name="dies_once", bind=True, acks_late=True, reject_on_worker_lost=True)
def dies_once(self: Task, place: str) -> str:
    note(place, "run")
    if len(notes(place)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "second time"


class Order(BaseModel):
    """An argument that pydantic checks."""

    item: str
    number: int


@app.task(name="typed", pydantic=True)
def typed(order: Order) -> Order:
    return Order(item=order.item.upper(), number=order.number + 1)


class ByClass(Task):
    """A task written as a class."""

    name = "by_class"

    def run(self, x: int) -> int:
        return x * 2


by_class = app.register_task(ByClass())


@shared_task(name="shared")
def shared(x: int) -> int:
    return x * 3


@app.task(name="routed", bind=True)
def routed(self: Task) -> Any:
    return self.request.delivery_info["routing_key"]


@app.task(name="annotated", bind=True)
def annotated(self: Task) -> Any:
    return self.max_retries


class Unpicklable(Exception):
    """An error that cannot be pickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")
        self.lock = __import__("threading").Lock()


@app.task(name="unpicklable")
def unpicklable() -> None:
    raise Unpicklable(1, 2)


@app.task(name="exits")
def exits() -> None:
    raise SystemExit(3)


@app.task(name="starts_another", bind=True)
def starts_another(self: Task) -> Any:
    child = request.delay("parent_id", "root_id")
    return [self.request.id, child.id]


@app.task(name="waits_for_another")
def waits_for_another() -> Any:
    from celery.result import allow_join_result

    with allow_join_result():
        return add.apply_async((1, 2), queue="second").get(60)


@app.task(name="abortable", base=AbortableTask, bind=True)
def abortable(self: AbortableTask, place: str) -> str:
    note(place, "run")
    for _ in range(600):
        if self.is_aborted():
            return "aborted"
        time.sleep(0.05)
    return "never"


@app.task(name="broadcast")
def broadcast(place: str) -> None:
    note(place, "heard")


@app.task(name="logs")
def logs(text: str) -> None:
    logger.info("task says %s", text)
    print(f"printed {text}")


@app.task(name="on_error")
def on_error(request: Any, exc: Any, traceback: Any) -> None:
    note("on_error", f"{type(request).__name__} {exc}")


@app.task(name="on_error_id")
def on_error_id(uuid: str) -> None:
    note(f"on_error_id {uuid}", "called")


# Signals, commands and steps


def _note_signal(name: str, with_task: bool = False) -> None:
    def receive(sender: Any = None, **kwargs: Any) -> None:
        if with_task:
            found = kwargs.get("request")
            task = getattr(sender, "name", None) or getattr(found, "name", None) or str(kwargs.get("name"))
            if task in ("add", "fail", "retried", "no.such.task", "sleep"):
                note(f"signal {name}", task)
        else:
            note(f"signal {name}", "sent")

    getattr(signals, name).connect(receive, weak=False)


for _name in (
    "task_prerun",
    "task_postrun",
    "task_success",
    "task_failure",
    "task_retry",
    "task_received",
    "task_revoked",
    "task_unknown",
):
    _note_signal(_name, with_task=True)
for _name in (
    "celeryd_init",
    "celeryd_after_setup",
    "worker_init",
    "worker_ready",
    "worker_process_init",
    "worker_process_shutdown",
    "worker_shutting_down",
    "worker_shutdown",
    "heartbeat_sent",
    "after_setup_logger",
    "after_setup_task_logger",
    "worker_before_create_process",
):
    _note_signal(_name)


@control_command(args=[("word", str)])
def shout(state: Any, word: str) -> dict[str, str]:
    """Answer a command of the application's own."""
    return {"ok": word.upper()}


@inspect_command()
def colour(state: Any) -> str:
    """Answer a question of the application's own."""
    return "green"


class WorkerStep(bootsteps.StartStopStep):
    """A step of the worker's."""

    requires = {"celery.worker.components:Pool"}

    def start(self, parent: Any) -> None:
        note("steps", "worker")


class ConsumerStep(bootsteps.StartStopStep):
    """A step of the consumer's."""

    requires = {"celery.worker.consumer.tasks:Tasks"}

    def start(self, parent: Any) -> None:
        note("steps", "consumer")


app.steps["worker"].add(WorkerStep)
app.steps["consumer"].add(ConsumerStep)

"""Remote control, inspection, events, signals, steps, the command line and beat."""

import contextlib
import subprocess
import sys
import threading
import time
from typing import Any
from uuid import uuid4

import featured
from celery import signals
from featured import add, app, held, noted, notes, notes_when

from millpond.worker.supervise.parent_death import with_parent_death_signal
from tests.applications.features.feature import PATIENCE, feature, until
from tests.applications.features.sending import free, occupied

Q, C, E, G, P = "Inspect", "Control", "Events and logs", "Signals and steps", "Programs"
SECONDS = 60
#: How long a program may take; its imports alone take seconds on a busy machine.
CLI_SECONDS = 300


def ask(question: str, *args: Any) -> Any:
    """Return the one worker's answer to a question."""
    answers = getattr(app.control.inspect(timeout=SECONDS, limit=1), question)(*args)
    [answer] = answers.values()
    return answer


def worker() -> str:
    """Return the one worker's name."""
    [name] = app.control.inspect(timeout=SECONDS, limit=1).ping()
    return str(name)


def place() -> str:
    """Return a new place for notes."""
    return uuid4().hex


feature(Q, "`ping`", [{"ok": "pong"}])(
    lambda: list(app.control.inspect(timeout=SECONDS, limit=1).ping().values())
)
feature(Q, "`registered`", True)(lambda: {"add", "sleep"} <= {each.split()[0] for each in ask("registered")})
feature(Q, "`active_queues`", True)(
    lambda: {"celery", "second"} <= {each["name"] for each in ask("active_queues")}
)
feature(Q, "`stats`: the pool and its totals", [True, 2, True])(
    lambda: [
        ask("stats")["total"].get("add", 0) > 0,
        ask("stats")["pool"]["max-concurrency"],
        "transport" in ask("stats")["broker"],
    ]
)
feature(Q, "`conf`", "featured")(lambda: "featured" if "beat_schedule" in ask("conf") else "")
feature(Q, "`report`", True)(lambda: "celery" in ask("report")["ok"])
feature(Q, "`clock`", True)(lambda: ask("clock")["clock"] > 0)
feature(Q, "`memsample`, `objgraph` answer", True)(lambda: isinstance(ask("memsample"), str))


@feature(Q, "`active`: with arguments", ["held", ["here", "x"]])
def active() -> Any:
    there = place()
    result = held.delay(there, "here", "x")
    [found] = until(lambda: [each for each in ask("active") if each["id"] == result.id])
    free(there, [result])
    return [found["name"], list(found["args"])[1:]]


@feature(Q, "`active`: `acknowledged`, `acks_late` is not set", True)
def acknowledged() -> Any:
    there = place()
    result = held.delay(there)
    notes_when(there, 1)
    found = [each["acknowledged"] for each in ask("active") if each["id"] == result.id]
    free(there, [result])
    return all(found) and bool(found)


@feature(Q, "`reserved`", True)
def reserved() -> Any:
    there = place()
    busy = occupied(there, 4)
    seen = until(lambda: {each["id"] for each in ask("reserved")} & {each.id for each in busy})
    free(there, busy)
    return bool(seen)


@feature(Q, "`scheduled`: tasks with an eta", True)
def scheduled() -> Any:
    result = add.apply_async((1, 1), countdown=600)
    return bool(until(lambda: [each for each in ask("scheduled") if each["request"]["id"] == result.id], 30))


@feature(Q, "`query_task` of a running task", "active")
def query() -> Any:
    there = place()
    result = held.delay(there)
    notes_when(there, 1)
    seen = until(lambda: (ask("query_task", result.id) or {}).get(result.id))
    free(there, [result])
    return seen[0]


@feature(Q, "`revoked`", True)
def revoked() -> Any:
    name = place()
    app.control.revoke(name)
    return until(lambda: name in ask("revoked"))


@feature(Q, "a question of one's own (`@inspect_command`)", "green")
def colour() -> Any:
    [answer] = app.control.broadcast("colour", reply=True, timeout=SECONDS, limit=1)
    return next(iter(answer.values()))


@feature(C, "a command of one's own (`@control_command`)", {"ok": "HELLO"})
def shout() -> Any:
    [answer] = app.control.broadcast(
        "shout", arguments={"word": "hello"}, reply=True, timeout=SECONDS, limit=1
    )
    return next(iter(answer.values()))


@feature(C, "`revoke` before the start", ["REVOKED", []])
def revoke() -> Any:
    there = place()
    busy = occupied(there, 4)
    result = noted.delay(f"{there} ran", "run")
    result.revoke(wait=True, timeout=SECONDS)
    free(there, busy)
    result.get(PATIENCE, propagate=False)
    return [result.state, notes(f"{there} ran")]


@feature(C, "`revoke(terminate=True)`", ["REVOKED", "terminated", 1])
def terminate() -> Any:
    there = place()
    result = held.delay(there)
    notes_when(there, 1)
    result.revoke(terminate=True)
    result.get(PATIENCE, propagate=False)
    return [result.state, str(result.result), len(notes(there))]


@feature(C, "`revoke_by_stamped_headers`", ["REVOKED", []])
def by_stamp() -> Any:
    there, stamp = place(), place()
    app.control.revoke_by_stamped_headers({"order": [stamp]}, reply=True, timeout=SECONDS, limit=1)
    signature = noted.s(there, "run")
    signature.stamp(order=stamp)
    result = signature.apply_async()
    result.get(PATIENCE, propagate=False)
    return [result.state, notes(there)]


@feature(C, "`rate_limit`", [True, True])
def rate_limit() -> Any:
    [answer] = app.control.rate_limit("noted", "2/s", reply=True, timeout=SECONDS, limit=1)
    there = place()
    try:
        began = time.monotonic()
        for _ in range(4):
            noted.delay(there, time.time())
        notes_when(there, 4)
        return ["ok" in next(iter(answer.values())), time.monotonic() - began >= 1.0]
    finally:
        app.control.rate_limit("noted", None, reply=True, timeout=SECONDS, limit=1)


@feature(C, "`time_limit` is answered", True)
def time_limit() -> Any:
    [answer] = app.control.time_limit("noted", hard=100, reply=True, timeout=SECONDS, limit=1)
    return "ok" in next(iter(answer.values()))


@feature(C, "`add_consumer`, `cancel_consumer`", [3, True])
def consumers() -> Any:
    app.control.add_consumer("third", reply=True, timeout=SECONDS, limit=1)
    found = add.apply_async((1, 2), queue="third").get(PATIENCE)
    app.control.cancel_consumer("third", reply=True, timeout=SECONDS, limit=1)
    return [found, until(lambda: "third" not in {each["name"] for each in ask("active_queues")})]


@feature(C, "`pool_grow`, `pool_shrink`", [3, 2])
def grow() -> Any:
    app.control.pool_grow(1, reply=True, timeout=SECONDS, limit=1)
    grown = until(lambda: len(ask("stats")["pool"].get("processes", ())) == 3) and 3
    app.control.pool_shrink(1, reply=True, timeout=SECONDS, limit=1)
    return [grown, until(lambda: len(ask("stats")["pool"].get("processes", ())) == 2) and 2]


@feature(C, "`autoscale`", True)
def autoscale() -> Any:
    [answer] = app.control.autoscale(3, 1, reply=True, timeout=SECONDS, limit=1)
    return bool(next(iter(answer.values())))


@feature(C, "`purge`", [3, 0])
def purge() -> Any:
    for _ in range(3):
        add.apply_async((1, 1), queue="unserved")
    with app.connection_for_write() as connection:
        purged = connection.default_channel.queue_purge("unserved")
    return [purged, featured._notes.llen("unserved")]


@feature(C, "a queue's length by `queue_declare(passive=True)`", 2)
def length() -> Any:
    for _ in range(2):
        add.apply_async((1, 1), queue="uncounted")
    with app.connection_for_write() as connection:
        return connection.default_channel.queue_declare("uncounted", passive=True).message_count


@feature(C, "`LLEN` of the queue's list (Flower, KEDA)", 2)
def llen() -> Any:
    for _ in range(2):
        add.apply_async((1, 1), queue="listed")
    return featured._notes.llen("listed")


def captured(act: Any, *wanted: str) -> list[str]:
    """Return which of the wanted events came while something was done."""
    seen: list[str] = []
    done = threading.Event()

    def heard(event: dict[str, Any]) -> None:
        if event["type"] in wanted and event["type"] not in seen:
            seen.append(event["type"])
        if set(wanted) <= set(seen):
            receiver.should_stop = True

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": heard})

        def later() -> None:
            # Events from before the receiver's subscription are not heard, so the action is repeated.
            deadline = time.monotonic() + PATIENCE
            while not done.wait(1) and time.monotonic() < deadline:
                act()
            receiver.should_stop = True

        acting = threading.Thread(target=later, daemon=True)
        acting.start()
        with contextlib.suppress(TimeoutError, StopIteration):
            receiver.capture(limit=None, timeout=PATIENCE, wakeup=False)
        done.set()
        acting.join(PATIENCE)
    return sorted(seen)


@feature(E, "events of a task (`enable_events`)", ["task-received", "task-started", "task-succeeded"])
def events() -> Any:
    app.control.enable_events(reply=True, timeout=SECONDS, limit=1)
    return captured(lambda: add.delay(1, 1), "task-received", "task-started", "task-succeeded")


@feature(E, "events of failures and retries", ["task-failed", "task-retried"])
def failures() -> Any:
    return captured(lambda: (featured.fail.delay(), featured.retried.delay(1)), "task-failed", "task-retried")


feature(E, "`worker-heartbeat`", ["worker-heartbeat"])(lambda: captured(lambda: None, "worker-heartbeat"))
feature(E, "`task-revoked`", ["task-revoked"])(
    lambda: captured(lambda: add.apply_async((1, 1), countdown=1).revoke(), "task-revoked")
)


@feature(E, "`disable_events`", True)
def disable() -> Any:
    [answer] = app.control.disable_events(reply=True, timeout=SECONDS, limit=1)
    return "ok" in next(iter(answer.values()))


def log_has(*texts: str) -> bool:
    """True once the worker's log has the texts."""
    from pathlib import Path

    return bool(until(lambda: all(text in Path("worker.log").read_text() for text in texts)))


@feature(E, "`get_task_logger`, and what is printed", True)
def logged() -> Any:
    text = place()
    featured.logs.delay(text).get(PATIENCE)
    return log_has(f"task says {text}", f"printed {text}")


@feature(E, "`Task … received` and `… succeeded in …` at INFO", True)
def lines() -> Any:
    result = add.delay(1, 1)
    result.get(PATIENCE)
    return log_has(f"Task add[{result.id}] received", f"Task add[{result.id}] succeeded in ")


feature(G, "`task_prerun`, `task_postrun`, `task_success`", True)(
    lambda: _signalled("add", "task_prerun", "task_postrun", "task_success")
)


def _signalled(task: str, *names: str) -> Any:
    missing = [name for name in names if not until(lambda name=name: task in notes(f"signal {name}"))]
    return missing or True


@feature(G, "`task_failure`, `task_retry`", True)
def failure_signals() -> Any:
    featured.fail.delay().get(PATIENCE, propagate=False)
    featured.retried.delay(1).get(PATIENCE)
    return [
        each
        for each in (_signalled("fail", "task_failure"), _signalled("retried", "task_retry"))
        if each is not True
    ] or True


feature(G, "`task_received`", True)(lambda: _signalled("add", "task_received"))


@feature(G, "`task_revoked`", True)
def revoked_signal() -> Any:
    app.control.revoke(id := place(), reply=True, timeout=SECONDS, limit=1)
    add.apply_async((1, 1), task_id=id).get(PATIENCE, propagate=False)
    return _signalled("add", "task_revoked")


@feature(G, "`task_unknown`", True)
def unknown_signal() -> Any:
    app.send_task("no.such.task")
    return _signalled("no.such.task", "task_unknown")


@feature(G, "`before_task_publish`, `after_task_publish`", ["add", "add"])
def publish_signals() -> Any:
    seen: list[str] = []

    def hear(sender: Any = None, **_: Any) -> None:
        seen.append(sender)

    for each in (signals.before_task_publish, signals.after_task_publish):
        each.connect(hear)
    add.delay(1, 1).get(PATIENCE)
    for each in (signals.before_task_publish, signals.after_task_publish):
        each.disconnect(hear)
    return seen


for name in (
    "celeryd_init",
    "celeryd_after_setup",
    "worker_init",
    "worker_ready",
    "worker_process_init",
    "heartbeat_sent",
    "after_setup_logger",
    "after_setup_task_logger",
    "on_after_finalize",
):
    feature(G, f"`{name}`", True)(lambda name=name: bool(until(lambda: notes(f"signal {name}"))))
feature(G, "a step of the worker's", True)(lambda: "worker" in notes("steps"))
feature(G, "a step of the consumer's", True)(lambda: "consumer" in notes("steps"))


def celery(*arguments: str) -> str:
    """Return the output of `celery -A featured …`."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "featured", *arguments],
        capture_output=True,
        text=True,
        timeout=CLI_SECONDS,
        check=False,
    )
    return done.stdout + done.stderr


feature(P, "`celery status`", True)(lambda: "1 node online" in celery("status", "-t", str(SECONDS)))
feature(P, "`celery inspect ping`", True)(lambda: "pong" in celery("inspect", "-t", str(SECONDS), "ping"))


@feature(P, "`celery call`, `celery result`", True)
def call() -> Any:
    id = celery("call", "add", "--args", "[2, 3]").strip().splitlines()[-1]
    assert app.AsyncResult(id).get(PATIENCE) == 5
    return celery("result", id).strip().endswith("5")


feature(P, "`celery report`", True)(lambda: "software ->" in celery("report"))
feature(P, "`celery amqp queue.purge`, `celery purge`", True)(
    lambda: "urged" in celery("purge", "-f", "-Q", "unserved") or celery("purge", "-f", "-Q", "unserved")
)


@feature(P, "`celery beat` with `beat_schedule`", True)
def beat() -> Any:
    command = [sys.executable, "-m", "celery", "-A", "featured", "beat", "-s", "beat-schedule", "--pidfile="]
    started = with_parent_death_signal(command)
    with subprocess.Popen(started, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            return len(notes_when("beat", 2, CLI_SECONDS)) >= 2
        finally:
            running.terminate()


@feature(P, "`celery events --dump`", True)
def dump() -> Any:
    app.control.enable_events(reply=True, timeout=SECONDS, limit=1)
    command = [sys.executable, "-u", "-m", "celery", "-A", "featured", "events", "--dump"]
    started = with_parent_death_signal(command)
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        ender = threading.Timer(CLI_SECONDS, running.terminate)
        ender.start()
        try:
            return any("heartbeat" in line or "task" in line for line in running.stdout or ())
        finally:
            ender.cancel()
            running.terminate()


feature(C, "`control.shutdown`: `worker_shutdown`", True)(lambda: _shutdown())


def _shutdown() -> Any:
    app.control.shutdown()
    return bool(until(lambda: notes("signal worker_shutdown")))


@feature(C, "`control.shutdown`: no worker is left", True)
def nobody() -> Any:
    return not until(lambda: app.control.ping(timeout=1), 30)

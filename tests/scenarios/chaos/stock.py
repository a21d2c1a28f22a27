"""The same tasks as a Celery application with the safest settings: on kombu's transport, or on Millpond's.

It acknowledges late, redelivers when a worker is lost, has kombu's priorities, a short visibility time-out,
and a search for expired messages as often. Run it by `celery -A tests.scenarios.chaos.stock worker`, or all
workers by `python -m tests.scenarios.chaos.stock`. With a `millpond://` URL it runs on Millpond's transport.
"""

import os
import sys
from typing import Any

from celery import Celery, Task
from kombu import Queue

from tests.scenarios.chaos.fleet import LEASE_SECONDS, POOLS, QUEUE
from tests.scenarios.chaos.kinds import QUEUES
from tests.scenarios.chaos.work import Again, Run, work

#: kombu returns an unacknowledged message to its queue after this time, whether its worker lives or not.
VISIBILITY_SECONDS = 10

#: kombu searches for such messages every so many seconds. By default only each tenth search is carried out.
RESTORE_SECONDS = 10

#: The lock of a process that searches expires after this time if it dies meanwhile. The default is 300 s.
MUTEX_SECONDS = 60

#: If the number of tasks has not fallen for three times the sum of these, it will not fall any more.
PATIENCE_SECONDS = 3.0 * (VISIBILITY_SECONDS + RESTORE_SECONDS + MUTEX_SECONDS)

BROKER = os.environ.get("CHAOS_BROKER", "")
KOMBUS: dict[str, Any] = {
    "visibility_timeout": VISIBILITY_SECONDS,
    "unacked_restore_interval": RESTORE_SECONDS,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": MUTEX_SECONDS,
}
#: The options of Millpond's transport: as in Millpond's own run.
OURS: dict[str, Any] = {
    "lease_seconds": LEASE_SECONDS,
    "queues": dict.fromkeys(QUEUES, QUEUE.broker_limits()),
    "full_queue_timeout": 60,
}
OPTIONS = {"socket_timeout": 5, **(OURS if BROKER.startswith("millpond") else KOMBUS)}

app = Celery("stock", broker=BROKER or None, set_as_current=False)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_acks_on_failure_or_timeout=True,
    task_ignore_result=True,
    task_queues=[Queue(name, routing_key=name) for name in QUEUES],
    task_default_queue=QUEUES[0],
    worker_prefetch_multiplier=2,
    worker_hijack_root_logger=False,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options=OPTIONS,
)


@app.task(bind=True, name="chaos.work", max_retries=None)
def do_work(self: Task, **job: Any) -> int:
    """Do the work of the task, which writes to the ledger. Retry or fail as the task says."""
    job = {"hold_seconds": 0.0, "retries": 0, "fails": False, **job}
    try:
        return work(Run(self.request.id, self.request.retries), **job)
    except Again as again:
        raise self.retry(countdown=again.seconds) from None


def fleet() -> int:
    """Run the pools' processes under the same supervisor as Millpond's."""
    from millpond.worker.supervise.child_process import ChildProcess
    from millpond.worker.supervise.supervisor import Supervisor, log_to_stderr

    def start(name: str, number: int) -> ChildProcess:
        pool = POOLS[name]
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "tests.scenarios.chaos.stock",
            "worker",
            "-l",
            "INFO",
        ]
        command += ["-P", pool.executor, "-c", str(pool.concurrency), "-Q", ",".join(pool.queues)]
        command += ["-n", f"{name}.{number}@%h", "--without-gossip", "--without-mingle"]
        return ChildProcess(name, number, lambda _: command)

    log_to_stderr("plain")
    children = [start(name, n) for name, pool in POOLS.items() for n in range(1, pool.processes + 1)]
    return Supervisor(children, stop_seconds=30).run()


if __name__ == "__main__":
    sys.exit(fleet())

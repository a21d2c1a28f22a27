"""The states of a task: one list for the client, the gateway, the command line, the pages and the metrics."""

from enum import StrEnum


class TaskState(StrEnum):
    """The state of a task, as it is written in JSON, in results and on pages.

        ready ──▶ running ──▶ succeeded | failed | cancelled | expired
          ▲          │ retry
          └─ delayed ◀

    A task that failed is kept as a dead letter: `failed` is its state in results, `dead` its state on the
    queue.
    """

    #: On a queue, waiting to be fetched.
    READY = "ready"
    #: Kept until its time is due: it was sent with a delay, or a retry waits.
    DELAYED = "delayed"
    #: In flight: a worker process has fetched it and runs it, or is about to.
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: One run ended with a retry. The task itself is `delayed`, then `ready` again.
    RETRIED = "retried"
    #: One run ended with its process, or was abandoned. The message was delivered again.
    LOST = "lost"
    CANCELLED = "cancelled"
    #: Its deadline or expiry passed before it started. It was not run.
    EXPIRED = "expired"
    #: Among the dead letters of its queue.
    DEAD = "dead"
    #: Not found: it has ended and nothing was kept of it, it never existed, or it moves between queues just
    #: now.
    UNKNOWN = "unknown"

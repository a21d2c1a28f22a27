"""A stock Celery client in a process of its own, which imports nothing of Millpond's.

Started as `python stock_client.py URL`. Each line of stdin is JSON, [protocol, call…]. A call is the
name of a task, its arguments by name and options of `apply_async`; or a chain or a group of
such. The answer to each is a line: when it began.
"""

import json
import sys
import time
from typing import Any

from celery import Celery, chain, group


def main() -> None:
    """Publish the message that each line describes."""
    app = Celery("stock", broker=sys.argv[1], set_as_current=False)
    app.conf.broker_transport_options = {"priority_steps": [0, 3, 6, 9]}
    for line in sys.stdin:
        protocol, *calls = json.loads(line)
        app.conf.task_protocol = protocol
        app.amqp.__dict__.pop("create_task_message", None)
        began = time.time()
        for call in calls:
            publish(app, call)
        print(began, flush=True)


def publish(app: Celery, call: Any) -> None:
    """Publish one call."""

    def signature(name: str, kwargs: dict[str, Any], options: dict[str, Any]) -> Any:
        return app.signature(name, kwargs=kwargs, immutable=True, **options).set(queue="default")

    match call:
        case {"chain": links}:
            chain(*(signature(*link) for link in links), app=app).apply_async()
        case {"group": members}:
            group([signature(*member) for member in members], app=app).apply_async()
        case [name, kwargs, options]:
            app.send_task(name, kwargs=kwargs, **{"queue": "default", **options})


if __name__ == "__main__":
    main()

"""The application's own checks, by its pages."""

import json
import time

from make_celery import flask_app

web = flask_app.test_client()


def ended(path: str, **form: object) -> list[object]:
    """Start a task by a page; return every value that the page of its result shows."""
    id = web.post(f"/tasks/{path}", data=form).json["result_id"]
    seen: list[object] = []
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        found = web.get(f"/tasks/result/{id}").json
        if found["value"] is not None and found["value"] not in seen:
            seen.append(found["value"])
        if found["ready"]:
            return [found["successful"], *seen]
        time.sleep(0.05)
    return ["not ready", *seen]


progress = ended("process", total=2)
print(
    json.dumps(
        {
            "a task by a page": ended("add", a=2, b=3),
            "progress, seen while it runs": [progress[0], progress[-1], len(progress) > 2],
            "the application's context in a task": ended("greeting"),
            "`task_ignore_result`": web.get(
                f"/tasks/result/{web.post('/tasks/block').json['result_id']}"
            ).json["ready"],
        }
    )
)

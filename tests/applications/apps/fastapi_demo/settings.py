"""Settings by a class, with the prefix CELERY_."""

import os
from typing import Any


def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **more: Any) -> dict[str, str]:
    """Return the queue that stands before the colon of a task's name."""
    queue, _, rest = name.partition(":")
    return {"queue": queue if rest else "celery"}


class Settings:
    """Read by `config_from_object(settings, namespace="CELERY")`."""

    CELERY_BROKER_URL = os.environ["APP_BROKER"]
    CELERY_RESULT_BACKEND = os.environ["APP_RESULTS"]
    CELERY_TASK_TRACK_STARTED = True
    CELERY_RESULT_EXTENDED = True
    CELERY_TASK_ROUTES = (route,)
    CELERY_TASK_DEFAULT_QUEUE = "celery"
    CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True


settings = Settings()

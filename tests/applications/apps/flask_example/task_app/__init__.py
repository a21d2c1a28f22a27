"""A Flask application with Celery, in the shape of Flask's own example."""

import os
from typing import Any

from celery import Celery, Task
from flask import Flask


def create_app() -> Flask:
    """Make the application."""
    app = Flask(__name__)
    app.config.from_mapping(
        CELERY={
            "broker_url": os.environ["APP_BROKER"],
            "result_backend": os.environ["APP_RESULTS"],
            "task_ignore_result": True,
        },
        GREETING="from the application's settings",
    )
    celery_init_app(app)

    from task_app import views

    app.register_blueprint(views.bp)
    return app


def celery_init_app(app: Flask) -> Celery:
    """Make the Celery application, whose tasks run in the application's context."""

    class FlaskTask(Task):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with app.app_context():
                return self.run(*args, **kwargs)

    celery_app = Celery(app.name, task_cls=FlaskTask)
    celery_app.config_from_object(app.config["CELERY"])
    celery_app.set_default()
    app.extensions["celery"] = celery_app
    return celery_app

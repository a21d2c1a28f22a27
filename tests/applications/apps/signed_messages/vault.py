"""An application whose messages Celery signs and checks: the serializer `auth`, with certificates."""

import os

from celery import Celery

folder = os.environ["VAULT_KEYS"]
app = Celery("vault", broker=os.environ["APP_BROKER"], backend=os.environ["APP_RESULTS"])
app.conf.update(
    security_key=f"{folder}/worker.key",
    security_certificate=f"{folder}/worker.pem",
    security_cert_store=f"{folder}/*.pem",
    security_digest="sha256",
    task_serializer="auth",
    event_serializer="auth",
    accept_content=["auth"],
    result_serializer="json",
    result_accept_content=["json"],
)
app.setup_security()


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task(bind=True, max_retries=2)
def again(self: object, times: int) -> int:
    if self.request.retries < times:  # type: ignore[attr-defined]
        raise self.retry(countdown=0.1)  # type: ignore[attr-defined]
    return int(self.request.retries)  # type: ignore[attr-defined]

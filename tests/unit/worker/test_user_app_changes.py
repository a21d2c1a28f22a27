"""What `millpond worker --app` names at its start: settings replaced or without effect, and what to do."""

from typing import Any

from celery import Celery

from millpond.tasks.settings import Settings
from millpond.worker import user_app

TABLE = {"pools": {"quick": {"executor": "threads"}, "heavy": {"executor": "prefork"}}, "queues": {}}


def told(pool: str, **conf: Any) -> str:
    """Return the table for an application with these settings, whose worker is of this pool."""
    app = Celery("shop", broker="redis://localhost/0", set_as_current=False)
    app.conf.update({"task_default_queue": pool, **conf})

    @app.task(name="shop.early", acks_late=False, rate_limit="1/s", shared=False)
    def early() -> None: ...

    queues = {name: {} for name in TABLE["pools"]}
    pools = {name: {**each, "queues": [name]} for name, each in TABLE["pools"].items()}
    settings = Settings(broker_url="redis://localhost/0", table={"pools": pools, "queues": queues})
    changes = user_app.configure(app, settings, (pool,))
    return user_app.table([*changes, *user_app.of_tasks(app)])


def lines(text: str) -> dict[str, str]:
    """Return the lines of a table by what they are about."""
    return {line[2:].split("  ")[0]: " ".join(line.split()) for line in text.splitlines()[1:]}


def test_replaced_and_unhonoured_settings_are_named_with_the_remedy() -> None:
    """Each line has both values, the reason and what to do; defaults that change no task's fate have none."""
    found = lines(
        told(
            "quick",
            task_time_limit=5,
            worker_prefetch_multiplier=16,
            worker_concurrency=9,
            task_default_rate_limit="9/m",
            broker_connection_retry_on_startup=False,
        )
    )
    assert "5 -> - a thread cannot be killed: give the pool executor" in found["task_time_limit"]
    assert "16 -> 1" in found["worker_prefetch_multiplier"]
    assert "9 -> - the pools table says it: `concurrency`" in found["worker_concurrency"]
    assert "`rate` of the queue holds for the whole fleet" in found["task_default_rate_limit"]
    assert "False -> True" in found["broker_connection_retry_on_startup"]
    assert "False -> True" in found["task_acks_late"]
    assert "a killed worker loses it" in found["acks_late of shop.early"]
    assert "`rate` of the queue" in found["rate_limit of shop.early"]
    assert not {"worker_enable_prefetch_count_reduction", "broker_connection_max_retries"} & found.keys()


def test_limits_hold_on_prefork_and_a_queue_without_a_pool_is_named() -> None:
    """A time limit is not named where children can be killed; a queue without a pool is, before it fills."""
    found = lines(told("heavy", task_time_limit=5, task_default_queue="celery"))
    assert "task_time_limit" not in found
    assert 'no pool of the table takes from it: queues = ["celery"]' in found["queue celery"]

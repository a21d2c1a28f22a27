"""The lines of `millpond worker --app` at its start: settings replaced or without effect, and remedies."""

import os
import re
import ssl
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, Task
from celery.signals import user_preload_options
from click import Option
from kombu import Queue
from kombu.common import Broadcast

from millpond.tasks import celery_application
from millpond.tasks.errors import SettingsError
from millpond.tasks.settings import Settings
from millpond.worker import user_app, user_options

TABLE = {"pools": {"quick": {"executor": "threads"}, "heavy": {"executor": "prefork"}}, "queues": {}}


def settings_of() -> Settings:
    """Return the settings of a worker."""
    queues = {name: {} for name in TABLE["pools"]}
    pools = {name: {**each, "queues": [name]} for name, each in TABLE["pools"].items()}
    return Settings(broker_url="redis://localhost/0", table={"pools": pools, "queues": queues})


def changes_of(pool: str, **conf: Any) -> str:
    """Return the table for an application with these settings, whose worker is of this pool."""
    app = Celery("shop", broker="redis://localhost/0", set_as_current=False)
    app.conf.update({"task_default_queue": pool, **conf})

    @app.task(name="shop.early", acks_late=False, rate_limit="1/s", shared=False)
    def early() -> None: ...

    changes = user_app.configure_app(app, settings_of(), (pool,))
    return user_app.format_changes([*changes, *user_app.unsafe_task_options(app)])


def lines(text: str) -> dict[str, str]:
    """Return the lines of a table by their subjects."""
    return {line[2:].split("  ")[0]: " ".join(line.split()) for line in text.splitlines()[1:]}


def test_replaced_and_unhonoured_settings_are_named_with_the_remedy() -> None:
    """Each line has both values, the reason and the remedy; defaults that change no task's fate have none."""
    found = lines(
        changes_of(
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
    assert "9 -> - set `concurrency` of the pool" in found["worker_concurrency"]
    assert "`rate` of the queue holds for the whole fleet" in found["task_default_rate_limit"]
    assert "False -> True" in found["broker_connection_retry_on_startup"]
    assert "False -> True" in found["task_acks_late"]
    assert "a killed worker loses it" in found["acks_late of shop.early"]
    assert "`rate` of the queue" in found["rate_limit of shop.early"]
    assert not {"worker_enable_prefetch_count_reduction", "broker_connection_max_retries"} & found.keys()


def test_limits_hold_on_prefork_and_a_queue_without_a_pool_is_named() -> None:
    """A time limit is not named where children can be killed; a queue without a pool is, before it fills."""
    found = lines(changes_of("heavy", task_time_limit=5, task_default_queue="celery"))
    assert "task_time_limit" not in found
    assert 'no pool serves it: set queues = ["celery"]' in found["queue celery"]


def test_limits_of_tasks_that_threads_do_not_keep_are_named() -> None:
    """Each limit of a task is named; those of a kind with a handler belong to its queue."""
    app = Celery("shop", set_as_current=False)

    @app.task(name="shop.slow", time_limit=2, soft_time_limit=1, shared=False)
    def slow() -> None: ...

    @app.task(name="shop.handled", time_limit=300, handler=object(), shared=False)
    def handled() -> None: ...

    found = lines(user_app.format_changes(list(user_app.limits_not_kept(app))))
    assert found.keys() == {"time_limit of shop.slow", "soft_time_limit of shop.slow"}
    assert "2 -> - a thread cannot be killed" in found["time_limit of shop.slow"]


def test_only_a_worker_of_threads_alone_names_limits_that_are_not_kept() -> None:
    """A prefork child can be killed."""
    table = settings_of().table
    assert [table.are_threads(pools) for pools in (("quick",), ("heavy",), ("quick", "heavy"), ())] == [
        True,
        False,
        False,
        False,
    ]


def test_queues_that_are_set_as_a_mapping_are_named_too() -> None:
    """Celery takes a mapping of names to options for `task_queues`, as well as a list of queues."""
    queues = {name: {"exchange": name, "routing_key": name} for name in ("orders", "heavy")}
    found = lines(changes_of("heavy", task_queues=queues))
    assert "queue orders" in found
    assert "queue heavy" not in found


def test_a_broadcast_is_served_and_named_by_its_alias() -> None:
    """The queue of a `Broadcast` has a random name in each process, which no pool can name."""
    queues = [Queue("heavy"), Broadcast("heavy"), Broadcast("every.one")]
    found = lines(changes_of("heavy", task_queues=queues, task_default_queue="heavy"))
    assert [name for name in found if name.startswith("queue ")] == ["queue every.one"]
    assert 'set queues = ["every.one"]' in found["queue every.one"]
    assert 'add a [queues."every.one"] table' in found["queue every.one"]


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("worker_disable_prefetch", True, "True -> False set `prefetch` of the pool"),
        ("task_acks_on_failure", False, "False -> None a failed task becomes a dead letter"),
        (
            "task_acks_on_timeout",
            False,
            "False -> None a task that its time limit ended becomes a dead letter",
        ),
        ("task_acks_on_failure_or_timeout", False, "False -> True a failed task becomes a dead letter"),
        ("worker_cancel_long_running_tasks_on_connection_loss", True, "True -> False a lease outlives"),
        ("worker_soft_shutdown_timeout", 9.0, "9.0 -> - `drain_seconds` is how long"),
        ("worker_enable_soft_shutdown_on_idle", True, "waits in the broker"),
        ("worker_state_db", "state.db", "state.db -> - the broker remembers"),
        ("worker_consumer", "proj:Own", "proj:Own -> - Millpond's consumer settles"),
        (
            "broker_read_url",
            "redis://other/0",
            "redis://other:6379/0 -> redis://localhost:6379/0 all messages have one broker: MILL",
        ),
        (
            "broker_write_url",
            "redis://other/0",
            "redis://other:6379/0 -> redis://localhost:6379/0 all messages have one broker: MILL",
        ),
        ("broker_use_ssl", True, "set -> - write rediss://"),
    ],
)
def test_no_setting_is_replaced_in_silence(setting: str, value: Any, said: str) -> None:
    """Each setting that has another effect than on stock is named with both values and its remedy."""
    found = " ".join(changes_of("heavy", **{setting: value}).split())
    assert said in found


def test_a_broker_of_the_environment_is_named_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery prefers CELERY_BROKER_URL to settings; what tasks send goes to the broker of their worker."""
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://other/0")
    app = Celery("shop", set_as_current=False)
    changes = user_app.configure_app(app, settings_of(), ("heavy",))
    assert "redis://other:6379/0 -> redis://localhost:6379/0" in " ".join(
        user_app.format_changes(changes).split()
    )
    assert app.connection_for_write().as_uri() == "redis://localhost:6379/0"


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("visibility_timeout", 60, "60 -> - leases take its place"),
        ("unacked_restore_interval", 5, "5 -> - leases take its place"),
        ("ack_emulation", False, "False -> - leases take its place"),
        ("global_keyprefix", "shop:", "shop: -> set MILLPOND_KEY_PREFIX"),
        ("socket_timeout", 77, "77 -> 5.0 set MILLPOND_BROKER_TIMEOUT_SECONDS"),
        ("queues", {"a": {}}, "set the limits of queues in the pools table"),
        ("lease_seconds", 3, "3 -> 15.0 set `lease_seconds` of the queue"),
        ("priority_steps", [0, 1, 2], "[0, 1, 2] -> [0, 3, 6, 9] four lists are served"),
        ("priority_steps", [0, 3], ""),
        ("sep", ":", "four lists are served"),
        ("queue_order_strategy", "sorted", ""),
        ("socket_keepalive", False, ""),
        ("health_check_interval", 7, ""),
        ("fanout_prefix", "x.", ""),
        ("max_connections", 5, ""),
        ("client_name", "shop", ""),
        ("retry_on_timeout", True, ""),
    ],
)
def test_an_option_of_the_transport_is_kept_or_named(option: str, value: Any, said: str) -> None:
    """An option of kombu's transport has its effect, or is named as the worker starts."""
    app = Celery("shop", broker="redis://localhost/0", set_as_current=False)
    app.conf.update(task_default_queue="heavy", broker_transport_options={option: value})
    changes = user_app.configure_app(app, settings_of(), ("heavy",))
    named = " ".join(user_app.format_changes([each for each in changes if option in each.setting]).split())
    assert said in named
    assert bool(named) == bool(said)
    assert said or app.conf.broker_transport_options[option] == value


def test_options_of_the_application_have_their_defaults_and_are_named() -> None:
    """Steps and receivers get an application's own options, as on Celery's command line; each is named."""
    app = Celery("shop", broker="redis://localhost/0", set_as_current=False)
    app.user_options["worker"].add(Option(("--shards",), type=int, default=4))
    app.user_options["preload"].add(Option(("--stage",), default="dev"))
    heard: list[Any] = []

    def hear(options: Any, **_: Any) -> None:
        heard.append(options)

    user_preload_options.connect(hear)
    try:
        assert user_options.add_default_options(app, {"pool": "threads"}) == {"pool": "threads", "shards": 4}
    finally:
        user_preload_options.disconnect(hear)
    assert heard == [{"stage": "dev"}]
    found = lines(user_app.format_changes(list(user_options.option_changes(app))))
    assert "- -> 4 `millpond worker` has no options" in found["option --shards"]
    assert "- -> dev" in found["option --stage"]


def test_an_option_that_must_be_given_is_named_in_one_line() -> None:
    """`millpond worker` has no such options: the error names the option, without a traceback."""
    app = Celery("shop", broker="redis://localhost/0", set_as_current=False)
    app.user_options["worker"].add(Option(("--shards",), type=int, required=True))
    with pytest.raises(SettingsError, match=r"Missing option '--shards'.*has no options of an application"):
        user_options.add_default_options(app, {})


def test_a_result_backend_that_cannot_be_made_ends_the_worker(capsys: pytest.CaptureFixture[str]) -> None:
    """Stock ends there, too: tasks whose results are lost one by one would be the alternative."""
    app = Celery("shop", broker="memory://", backend="nosuch://x", set_as_current=False)
    with pytest.raises(SystemExit) as ended:
        user_app.check_result_backend(app)
    assert ended.value.code == os.EX_CONFIG
    assert re.fullmatch(r"millpond: result_backend cannot be used: .*nosuch.*\n", capsys.readouterr().err)


def test_a_batch_that_the_pool_never_holds_is_named() -> None:
    """A task of celery-batches that waits for more messages than are fetched ahead names the remedy."""
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.in_flight = SimpleNamespace(prefetch=4)

    class Batches(Task):
        flush_every = 5

    @app.task(base=Batches, name="shop.together", shared=False, acks_late=True)
    def together(requests: Any) -> None: ...

    found = lines(user_app.format_changes(list(user_app.unsafe_task_options(app))))
    assert "5 -> prefetch 4" in found["flush_every of shop.together"]
    app.in_flight.prefetch = 5
    assert "flush_every of shop.together" not in {each.setting for each in user_app.unsafe_task_options(app)}


def test_a_broker_in_use_as_it_is_set_is_not_named() -> None:
    """With `broker_use_ssl`, the broker in use is `rediss://` where the setting has `redis://`: no change."""
    app = Celery("shop", broker="redis://localhost/0", set_as_current=False)
    app.conf.update(broker_use_ssl={"ssl_cert_reqs": ssl.CERT_NONE}, task_default_queue="heavy")
    chosen = settings_of().model_copy(update={"broker_url": celery_application.broker_url(app)})
    assert not [each for each in user_app.configure_app(app, chosen) if each.setting.startswith("broker_")]
    assert app.conf.broker_url.startswith("rediss://")


@pytest.mark.parametrize("on", [True, False])
def test_spans_that_come_twice_are_named(on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's own instrumentor beside Millpond's spans is named while it is on."""
    made = SimpleNamespace(is_instrumented_by_opentelemetry=on)
    module = SimpleNamespace(CeleryInstrumentor=lambda: made)
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.celery", module)
    assert ("CeleryInstrumentor" in changes_of("heavy")) is on

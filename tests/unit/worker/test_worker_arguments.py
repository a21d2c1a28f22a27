"""The arguments of a pool's process follow the pools table."""

import json
import os
from typing import Any

import pytest

from millpond.tasks.pools import Pool
from millpond.tasks.settings import Settings, child_environment
from millpond.worker.process import process_command, worker_options


def test_the_table_decides_slots_executor_and_queues() -> None:
    """A pool's executor, concurrency and queues are Celery's, and each process has a name of its own."""
    pool = Pool(queues=("email", "bulk"), executor="threads", concurrency=3)
    chosen = worker_options("mail", 2, pool)
    assert (chosen["pool"], chosen["concurrency"], chosen["queues"]) == ("threads", 3, ["email", "bulk"])
    assert chosen["hostname"].startswith("mail.2@")


def test_a_prefork_child_is_replaced_after_so_many_tasks_or_so_much_memory() -> None:
    """The caps of a prefork pool reach Celery, the memory in its unit, KiB."""
    capped = Pool(queues=("q",), executor="prefork", max_tasks_per_child=10, max_memory_per_child_mb=2)
    chosen = worker_options("files", 1, capped)
    assert (chosen["max_tasks_per_child"], chosen["max_memory_per_child"]) == (10, 2048)


def test_threads_have_no_children_to_cap() -> None:
    """The limits of children are left out of the options of a pool of threads."""
    assert "max_tasks_per_child" not in worker_options("p", 1, Pool(queues=("q",), max_tasks_per_child=10))


def test_a_folder_named_worker_where_the_user_is_does_no_harm() -> None:
    """The interpreter does not import modules of the current folder."""
    assert process_command("email", 1)[1] == "-P"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"broker_url": "redis://:secret@h/0", "kinds": ("a", "b"), "flower_basic_auth": ("ann:pw",)},
        {"smtp": {"username": "u", "password": "pw", "security": "tls"}},
        {"table": {"pools": {"files": {"max_tasks_per_child": None}, "more": {"queues": ["email"]}}}},
    ],
)
def test_a_child_reads_the_same_settings_as_its_parent(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that are passed in the environment are equal in the child, with secrets and missing values."""
    monkeypatch.setenv("MILLPOND_SMTP__HOST", "another.example")
    monkeypatch.setenv("MILLPOND_BROKER_URL", "redis://another/0")
    before = Settings(**given)
    for name, value in child_environment(before).items():
        monkeypatch.setenv(name, value)
    for name in set(os.environ) - set(child_environment(before)):
        monkeypatch.delenv(name)
    assert Settings() == before


def test_secrets_reach_the_child_unmasked() -> None:
    """The environment of a child has the passwords, not their masks."""
    login = Settings(smtp={"username": "u", "password": "pw", "security": "tls"})  # type: ignore[arg-type]
    assert json.loads(child_environment(login)["MILLPOND_SMTP"])["password"] == "pw"

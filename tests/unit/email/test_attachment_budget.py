"""Mails with large attachments wait for each other, so that all slots fit the memory of the container."""

import threading
from concurrent.futures import ThreadPoolExecutor

from millpond.tasks.email.attachment_budget import AttachmentBudget
from tests.conftest import Eventually


def test_no_more_is_reserved_than_the_budget_and_small_mails_go_on() -> None:
    """Eight threads never hold more than the budget together, and none waits for ever."""
    budget, lock, others, held, most = AttachmentBudget(100), threading.Lock(), threading.Event(), 0, 0

    def send(needed: int) -> None:
        nonlocal held, most
        for _ in range(50):
            with budget.reserve_bytes(needed):
                with lock:
                    held += min(needed, 100)
                    most = max(most, held)
                others.wait(0.001)  # so that others may come in
                with lock:
                    held -= min(needed, 100)

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(send, needed) for needed in (100, 1_000, 60, 50, 30, 10, 1, 0)]:
            done.result(timeout=30)
    assert 50 < most <= 100


def test_a_large_mail_is_not_passed_by_small_ones(eventually: Eventually) -> None:
    """The budget is given in the order of asking; a mail without attachments waits for none."""
    budget, order = AttachmentBudget(100), list[str]()

    def send(name: str, needed: int) -> None:
        with budget.reserve_bytes(needed):
            order.append(name)

    threads = []
    with budget.reserve_bytes(50):
        for place, (name, needed) in enumerate((("large", 100), ("small", 10)), start=1):
            threads.append(threading.Thread(target=send, args=(name, needed)))
            threads[-1].start()
            eventually(lambda place=place: len(budget._waiting) == place)
        with budget.reserve_bytes(0):
            assert order == []
    for each in threads:
        each.join(10)
    assert order == ["large", "small"]

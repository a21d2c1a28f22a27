"""The stack of requests that a thread runs."""

from concurrent.futures import ThreadPoolExecutor

from millpond.worker.celery.request_stack import RequestStack


def test_each_thread_has_a_stack_of_its_own_by_whatever_method_another_thread_took() -> None:
    """Celery's tracer takes the methods where it is made, and calls them in the pool's threads."""
    stack = RequestStack()
    push, pop = stack.push, stack.pop
    push("main")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: (push("other"), stack.top, len(stack), pop(), pop())).result() == (
            None,
            "other",
            1,
            "other",
            None,
        )
    assert stack.top == "main"

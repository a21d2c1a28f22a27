"""What a body prints is logged, a record for each `print`."""

import logging
import threading

import pytest

from millpond.worker.report.stdout_logging import Prints


@pytest.fixture
def prints() -> Prints:
    """Make the stream that takes the place of standard output."""
    return Prints(logging.getLogger("printed"), logging.WARNING)


def test_a_print_of_several_arguments_is_one_record(prints: Prints, caplog: pytest.LogCaptureFixture) -> None:
    """`print` writes each argument, each space and the end by itself."""
    print("paid", 42, "euros", file=prints)
    assert caplog.messages == ["paid 42 euros"]


def test_what_is_written_is_logged_with_the_end_of_a_line(
    prints: Prints, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines of one write stay together; what does not end waits for its end, or for a flush."""
    prints.write("one\ntwo\n")
    prints.write("\n")
    prints.write("th")
    prints.write("r\nee")
    assert caplog.messages == ["one\ntwo"]
    prints.flush()
    prints.flush()
    assert caplog.messages == ["one\ntwo", "thr\nee"]


def test_a_line_that_never_ends_is_not_kept_for_ever(
    prints: Prints, caplog: pytest.LogCaptureFixture
) -> None:
    """Memory has a bound."""
    for _ in range(30):
        prints.write("x" * 1_000)
    assert sum(len(message) for message in caplog.messages) >= 20_000


def test_threads_do_not_mix_their_lines(prints: Prints, caplog: pytest.LogCaptureFixture) -> None:
    """Each thread runs a task of its own."""
    prints.write("this one ")
    other = threading.Thread(target=print, args=("that one",), kwargs={"file": prints})
    other.start()
    other.join()
    prints.write("goes on\n")
    assert caplog.messages == ["that one", "this one goes on"]


def test_a_handler_that_prints_does_not_go_round_in_circles(
    prints: Prints, caplog: pytest.LogCaptureFixture
) -> None:
    """What is written while a line is logged is dropped, as Celery does."""

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("again:", record.getMessage(), file=prints)

    prints.logger.addHandler(echo := Echo())
    try:
        print("once", file=prints)
    finally:
        prints.logger.removeHandler(echo)
    assert caplog.messages == ["once"]

"""The output of handlers is logged, with one record for each `print`."""

import faulthandler
import io
import logging
import logging.config
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, signals
from celery.app.log import Logging

from millpond.worker.report.stdout_logging import LoggingStream, StdoutLogging


@pytest.fixture
def prints() -> Iterator[LoggingStream]:
    """The stream that replaces standard output."""
    made = LoggingStream(logging.getLogger("printed"), logging.WARNING)
    yield made
    made.flush()  # else the rest is logged when it is collected, in a later test


def test_a_print_of_several_arguments_is_one_record(
    prints: LoggingStream, caplog: pytest.LogCaptureFixture
) -> None:
    """`print` writes each argument, each space and the line end in a write of its own."""
    print("paid", 42, "euros", file=prints)
    assert caplog.messages == ["paid 42 euros"]


def test_text_is_logged_when_a_write_ends_a_line(
    prints: LoggingStream, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines of one write are one record. A line without its end is logged at a flush."""
    prints.write("one\ntwo\n")
    prints.write("\n")
    prints.write("th")
    prints.write("r\nee")
    assert caplog.messages == ["one\ntwo"]
    prints.flush()
    prints.flush()
    assert caplog.messages == ["one\ntwo", "thr\nee"]


def test_a_long_line_is_logged_in_parts(prints: LoggingStream, caplog: pytest.LogCaptureFixture) -> None:
    """The buffer of a line that does not end is bounded."""
    for _ in range(30):
        prints.write("x" * 1_000)
    assert sum(len(message) for message in caplog.messages) >= 20_000


def test_threads_do_not_mix_their_lines(prints: LoggingStream, caplog: pytest.LogCaptureFixture) -> None:
    """Each thread has a buffer, because it runs a task of its own."""
    prints.write("this one ")
    other = threading.Thread(target=print, args=("that one",), kwargs={"file": prints})
    other.start()
    other.join()
    prints.write("goes on\n")
    assert caplog.messages == ["that one", "this one goes on"]


def test_a_logging_handler_that_prints_does_not_recurse(
    prints: LoggingStream, caplog: pytest.LogCaptureFixture
) -> None:
    """Output that is written while a line is logged is dropped, as Celery does."""

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            print("again:", record.getMessage(), file=prints)

    prints.logger.addHandler(echo := Echo())
    try:
        print("once", file=prints)
    finally:
        prints.logger.removeHandler(echo)
    assert caplog.messages == ["once"]


def test_the_stream_has_what_code_expects_of_standard_output(
    prints: LoggingStream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Libraries write bytes and lines, and ask for a descriptor and an encoding: none of it raises."""
    with (tmp_path / "out").open("w") as standard:
        stream = LoggingStream(prints.logger, logging.WARNING, standard=standard)
        monkeypatch.setattr(sys, "stdout", stream)
        assert isinstance(sys.stdout, io.TextIOBase)
        assert (stream.encoding, stream.isatty(), stream.writable(), stream.readable()) == (
            "utf-8",
            False,
            True,
            False,
        )
        assert stream.errors
        "é".encode(sys.stdout.encoding, sys.stdout.errors)
        sys.stdout.reconfigure(encoding="utf-8", errors="replace", line_buffering=True)
        sys.stdout.writelines(["one ", "two\n"])
        sys.stdout.buffer.write("dré".encode()[:-1])
        sys.stdout.buffer.write(b"\xa9i\n")
        sys.stdout.buffer.write(bytearray(b"\xff\n"))
        sys.stdout.buffer.flush()
        print("vier", file=sys.stdout, flush=True)
        with pytest.raises(OSError, match="detach"):
            sys.stdout.detach()
        sys.stdout.close()
        sys.stdout.buffer.close()
        assert not sys.stdout.closed
        print("fünf")
        subprocess.run([sys.executable, "-c", "print('child')"], stdout=sys.stdout, check=True)
        faulthandler.dump_traceback(file=sys.stdout)
        assert os.get_inheritable(sys.stdout.fileno()) is False
    assert [record.getMessage() for record in caplog.records] == ["one two", "dréi", "\\xff", "vier", "fünf"]
    written = (tmp_path / "out").read_text()
    assert written.startswith("child\n")
    assert "most recent call first" in written


def test_a_stream_without_a_descriptor_raises_as_others_do(prints: LoggingStream) -> None:
    """If the process has no standard output, `fileno` raises `UnsupportedOperation`."""
    with pytest.raises(OSError, match="fileno"):
        prints.fileno()


def test_standard_output_and_error_have_descriptors_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of a child process goes to them."""
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    StdoutLogging(Celery(set_as_current=False)).redirect_stdouts_to_logger(logging.getLogger("printed"))
    assert sys.stdout.fileno() == sys.__stdout__.fileno()  # type: ignore[union-attr]
    assert sys.stderr.fileno() == sys.__stderr__.fileno()  # type: ignore[union-attr]
    assert sys.stdout.name != sys.stderr.name


def test_an_application_that_sets_up_logging_does_not_silence_millpond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`dictConfig` disables the loggers that it does not name. Millpond's go on, with its levels."""
    monkeypatch.setattr(Logging, "_setup", False)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(root, "level", root.level)
    existing = [name for name in root.manager.loggerDict if logging.getLogger(name).disabled]
    ours, quiet, other = (
        logging.getLogger(name) for name in ("millpond.silenced", "millpond.quiet", "orchard_silenced")
    )

    def set_up(**_: Any) -> None:
        loggers = {"millpond.quiet": {"level": "ERROR"}}
        logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}, "loggers": loggers})

    signals.setup_logging.connect(set_up)
    try:
        StdoutLogging(Celery(set_as_current=False)).setup(loglevel="INFO", redirect_stdouts=False)
        assert ours.isEnabledFor(logging.INFO)
        assert (quiet.isEnabledFor(logging.ERROR), quiet.isEnabledFor(logging.INFO)) == (True, False)
        assert not other.isEnabledFor(logging.INFO)
    finally:
        signals.setup_logging.disconnect(set_up)
        for name in root.manager.loggerDict:
            logging.getLogger(name).disabled = name in existing
        quiet.setLevel(logging.NOTSET)

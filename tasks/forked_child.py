"""End a child process that a handler forked and that returns from the handler into the worker's code.

Such a child has a copy of the worker's memory: its connections, its queue, its messages in flight. It would
run and settle these a second time. So it ends at once, with the exit code that the interpreter would give:
that of `sys.exit`, or 1 after a traceback. The worker's cleanup is not run in it.
"""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn


def call_ending_forks(function: Callable[..., Any], *args: Any) -> Any:
    """Call a handler and return its value. End a child that the handler forked and that returns, too."""
    pid = os.getpid()
    try:
        value = function(*args)
    except BaseException as error:
        if os.getpid() != pid:
            end_child(error)
        raise
    if os.getpid() != pid:
        end_child()
    return value


def end_child(error: BaseException | None = None) -> NoReturn:
    """End this process, a child forked by a handler that has returned or has raised `error`."""
    code: object = 0
    with suppress(Exception):
        if isinstance(error, SystemExit):
            code = 0 if error.code is None else error.code
            if not isinstance(code, int):
                print(code, file=sys.stderr)
        elif error is not None:
            code = 1
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code & 0xFF if isinstance(code, int) else 1)

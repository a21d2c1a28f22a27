"""A child that a handler forked, and that comes back from the handler into the worker's code.

It has the worker's memory: its connections, the tasks in its queue, its messages in flight. It is not the
worker, and would run and settle all of these a second time. So it ends there, as the interpreter would end
it: with the code of `sys.exit`, or 1 after a traceback. No cleanup of the worker's is run in it.
"""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn


def call_without_fork(function: Callable[..., Any], *args: Any) -> Any:
    """Call a handler and return its value. A child that the handler forked does not return from here."""
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
    """End this forked child, whose handler returned, or raised `error`."""
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

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


def guarded(function: Callable[..., Any], *args: Any) -> Any:
    """Call a handler; return in the process that called it, and in no child of it."""
    pid = os.getpid()
    try:
        value = function(*args)
    except BaseException as error:
        if os.getpid() != pid:
            end(error)
        raise
    if os.getpid() != pid:
        end()
    return value


def end(error: BaseException | None = None) -> NoReturn:
    """End this process, whose handler raised `error` or returned."""
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

"""Run a command: return its exit code, and print one line for each error that a user can cause.

0 all succeeded, 1 something failed, 2 wrong usage or input, 3 the broker is unreachable, 130 interrupted by
Ctrl-C, 141 the reader of a pipe closed it, as `head` does, 143 terminated by SIGTERM.
"""

import errno
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from typer.exceptions import TyperException

from millpond.tasks.errors import (
    BadBrokerUrl,
    BadContract,
    BadInput,
    BrokerAway,
    MillpondError,
    SettingsError,
    UnknownBatch,
    UnknownKind,
    UnknownQueue,
)

FAILED = 1
USAGE = 2
BROKER_AWAY = 3
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143

#: The errors of a system that cannot write more to a file.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_WRONG_INPUT = (BadBrokerUrl, BadContract, BadInput, SettingsError, UnknownBatch, UnknownKind, UnknownQueue)


def run_command(command: Any, arguments: Sequence[str], *, program: str, obj: Any) -> int:
    """Run a command line, print its error if there is one, and return its exit code. Raises nothing.

    `obj` is the object that commands find in their context.
    """
    try:
        code = command.main(list(arguments), prog_name=program, standalone_mode=False, obj=obj)
        return _flush_output(code if isinstance(code, int) else 0)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # typer turns the pipe's error into an exit
            return _discard_output()
        return _flush_output(end.code if isinstance(end.code, int) else FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        return _print_error(error, program)


def _flush_output(code: int) -> int:
    """Write the rest of the output. Return `code`, or `BROKEN_PIPE` if its reader has closed the pipe."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _discard_output()
    return code


def _discard_output() -> int:
    """Discard the rest of the output, which Python could not flush at exit. Return the exit code."""
    from millpond.tasks.process import interrupt

    interrupt.discard_output()
    return BROKEN_PIPE


def _print_error(error: Exception, program: str) -> int:
    """Print an error in one line, before it the traceback if MILLPOND_DEBUG is set. Return the exit code."""
    from millpond.tasks.settings import is_debug

    if is_debug():
        traceback.print_exception(error)
    if type(error).__name__ == "NoArgsIsHelpError":  # only a private module of typer has this class
        print(error, file=sys.stderr)
        return USAGE
    text, code = _describe_error(error)
    notes = getattr(error, "__notes__", ())
    line = " ".join(f"{program}: {' '.join((text, *notes))}".split())
    print(line, file=sys.stderr)
    return code


def _describe_error(error: Exception) -> tuple[str, int]:
    """Return an error's text and its exit code."""
    match error:
        case TyperException():
            return _usage_text(error), USAGE
        case BrokerAway():
            return str(error), BROKER_AWAY
        case MillpondError():
            return str(error), USAGE if isinstance(error, _WRONG_INPUT) else FAILED
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}", USAGE
        case OSError() if error.errno in _UNWRITABLE:
            return f"the output cannot be written: {error.strerror}", FAILED
        case ModuleNotFoundError() if install := _install_command(error.name or ""):
            return f"this needs {error.name}. Install with: {install}", FAILED
        case _:
            return (
                f"a fault in Millpond: {type(error).__name__}: {error}. "
                "Please report it, with what MILLPOND_DEBUG=1 shows"
            ), FAILED


def _usage_text(error: TyperException) -> str:
    """Return the text for a wrong command line, with a similar name for an unknown command or option.

    A command may have a table of the options that another program has in its place, and the replacements:
    `instead_of_options` of its context's object.
    """
    from millpond.producer.cli.param_words import format_click_error
    from millpond.tasks.name_suggestions import closest_name

    context = getattr(error, "ctx", None)
    text, name = format_click_error(error) or error.format_message(), getattr(error, "option_name", "")
    names: list[str] = []
    if command := re.match(r"No such command '(.*?)'", text):
        name, names = command[1], context.command.list_commands(context) if context else []
        text = f"no command is named {name!r}."
    elif name:
        names = [opt for option in context.command.params for opt in option.opts] if context else []
        text = f"no option is named {name!r}." if text.startswith("No such option") else text
        of_context = context.obj if context and isinstance(context.obj, dict) else {}
        if instead := of_context.get("instead_of_options", {}).get(name):
            text, names = f"no option is named {name!r}: use {instead}.", []
    suggestion = closest_name(name, names) if names else None
    if not text.endswith("."):
        text += "."
    if suggestion:
        text += f" Did you mean {suggestion!r}?"
    return f"{text} See: {context.command_path} --help" if context else text


def _install_command(module: str) -> str | None:
    """Return the command that installs the extra with a module, or None if no extra has it."""
    from millpond.tasks.extras import extra_of_module, install_command

    extra = extra_of_module(module)
    return install_command([extra]) if extra else None

"""End a command: its exit code, and one line for everything that a person can cause.

0 all succeeded, 1 something failed, 2 wrong usage or input, 3 the broker is unreachable, 130 interrupted,
141 the reader of a pipe went away, as `head` does, 143 told to end (SIGTERM).
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
AWAY = 3
INTERRUPTED = 130
UNREAD = 141
TERMINATED = 143

#: The kernel's errors when nothing more can be written.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_WRONG_INPUT = (BadBrokerUrl, BadContract, BadInput, SettingsError, UnknownBatch, UnknownKind, UnknownQueue)


def run_command(command: Any, arguments: Sequence[str], *, program: str, obj: Any) -> int:
    """Run a command line and return its exit code. Nothing is raised."""
    try:
        code = command.main(list(arguments), prog_name=program, standalone_mode=False, obj=obj)
        return _flush_output(code if isinstance(code, int) else 0)
    except SystemExit as end:
        if isinstance(
            end.__context__, BrokenPipeError
        ):  # typer ends this way if a command's `print` meets it
            return _exit_unread()
        return _flush_output(end.code if isinstance(end.code, int) else FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        return _print_error(error, program)


def _flush_output(code: int) -> int:
    """Write the rest of the output. Return `code`, or `UNREAD` if the reader of the output went away."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _exit_unread()
    return code


def _exit_unread() -> int:
    """Discard the output that nobody reads, and return the exit code for it."""
    from millpond.tasks.process import interrupt

    interrupt.discard_output()
    return UNREAD


def _print_error(error: Exception, program: str) -> int:
    """Print an error in one line, and its traceback if requested. Return the exit code."""
    from millpond.tasks.settings import is_debug

    if is_debug():
        traceback.print_exception(error)
    if type(error).__name__ == "NoArgsIsHelpError":  # typer names it in a private module alone
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
            return str(error), AWAY
        case MillpondError():
            return str(error), USAGE if isinstance(error, _WRONG_INPUT) else FAILED
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}", USAGE
        case OSError() if error.errno in _UNWRITABLE:
            return f"the output cannot be written: {error.strerror}", FAILED
        case ModuleNotFoundError() if lacking := _install_hint(error.name or ""):
            return f"this needs {error.name}. Install with: {lacking}", FAILED
        case _:
            return (
                f"a fault in Millpond: {type(error).__name__}: {error}. "
                "Please report it, with what MILLPOND_DEBUG=1 shows"
            ), FAILED


def _usage_text(error: TyperException) -> str:
    """Return the line about a command line that does not fit: an unknown name with the one that was meant."""
    from millpond.producer.cli.param_words import refusal_line
    from millpond.tasks.name_suggestions import closest_name

    context = getattr(error, "ctx", None)
    said, name = refusal_line(error) or error.format_message(), getattr(error, "option_name", "")
    names: list[str] = []
    if command := re.match(r"No such command '(.*?)'", said):
        name, names = command[1], context.command.list_commands(context) if context else []
        said = f"no command is named {name!r}."
    elif name:
        names = [each for option in context.command.params for each in option.opts] if context else []
        said = f"no option is named {name!r}." if said.startswith("No such option") else said
    meant = closest_name(name, names) if names else None
    line = f"{said}{'' if said.endswith('.') else '.'}{f' Did you mean {meant!r}?' if meant else ''}"
    return f"{line} See: {context.command_path} --help" if context else line


def _install_hint(module: str) -> str | None:
    """Return the command that installs the extra which brings a module. Return None if no extra brings it."""
    from millpond.tasks.extras import extra_of_module, install_command

    extra = extra_of_module(module)
    return install_command([extra]) if extra else None

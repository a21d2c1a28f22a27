"""Render templates. This is a program of its own: it reads requests from stdin and writes replies to stdout.

Each request and each reply is a line of JSON. MiniJinja counts operations and characters, and ends a
rendering that uses up its fuel. It does not count all work, as the width of a format, so the process has
limits of memory and time. `template_process.py` runs this file as a script, so it imports nothing of
Millpond.
"""

import json
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minijinja import Environment, TemplateError, escape, pass_state, safe

#: The most units of work and of text in one rendering, as MiniJinja counts them.
FUEL = 2_000_000
MEMORY_BYTES = 256 * 1024**2
CPU_SECONDS = 1.5
MAX_RENDERED_CHARACTERS = 1_000_000
MAX_FILE_BYTES = 4_000_000

#: The largest integer of MiniJinja. A larger one is passed as text.
_MAX_WHOLE_NUMBER = 2**127 - 1
#: The last lines of a template error: a cause with its file and line.
_CAUSE = re.compile(r"^caused by: (.*) \(in (.*):(\d+)\)$", re.MULTILINE)
_LINK = re.compile(r"https?://[^\s<>\"'()\[\]{}]+")


def answer_request(request: dict[str, Any], *, fuel: int | None = FUEL) -> dict[str, Any]:
    """Return the reply to one request. A `fuel` of None is no limit.

    It has the rendered `text`, null if there is no such file. Or it has an `error` in one line with its
    `kind`, and its `line` and `file` if they are known.
    """
    try:
        text = _render_template(request, fuel)
    except TemplateError as error:
        return _error_reply(error)
    except FilterFailed as error:
        return {"error": str(error), "kind": "FilterFailed", "file": error.file}
    except MemoryError:  # it ends this process, as it does where MiniJinja has no memory left
        raise
    except Exception as error:
        text = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        return {"error": text, "kind": type(error).__name__}
    if text is not None and len(text) > MAX_RENDERED_CHARACTERS:
        return {"error": f"it makes more than {MAX_RENDERED_CHARACTERS} characters", "kind": "TooLong"}
    return {"text": text}


def _error_reply(error: TemplateError) -> dict[str, Any]:
    """Return the reply for an error of a template. Its file is the included one if the error is there."""
    causes = _CAUSE.findall(str(error))
    reason, file, line = causes[-1] if causes else (error.detail or error.message, error.name, error.line)
    kind = "OutOfFuel" if "engine ran out of fuel" in reason else error.kind
    return {"error": " ".join(reason.split()), "kind": kind, "line": line, "file": file}


def _render_template(request: dict[str, Any], fuel: int | None) -> str | None:
    """Return the rendered template of a request. Return None if there is no file of that name."""
    folder, name, is_html = request["folder"], request["name"], request["html"]
    source = request["source"]
    load = _make_folder_loader(Path(folder)) if folder is not None else _refuse_include
    if source is None and (source := load(name)) is None:
        return None
    environment = Environment(
        loader=load,
        filters={
            "truncate": _text_filter("truncate", _truncate_text),
            "urlize": _text_filter("urlize", _urlize_text),
            "wordcount": _text_filter("wordcount", lambda text: len(text.split())),
        },
        fuel=fuel,
        undefined_behavior="strict",
        auto_escape_callback=lambda _name: is_html,
        keep_trailing_newline=True,
    )
    environment.remove_global("debug")
    # `self` is a name of MiniJinja's own.
    values = {key: _to_template_value(value) for key, value in request["values"] if key != "self"}
    return environment.render_str(source, name, **values)


def _make_folder_loader(folder: Path) -> Callable[[str], str | None]:
    """Return a function that reads a template from the folder, and no file outside of it."""
    folder = folder.resolve()

    def load(name: str) -> str | None:
        """Return the text of a template. Return None if the folder has no such file.

        Raises `ValueError` for a file over `MAX_FILE_BYTES` or not in UTF-8, and `OSError` if it cannot be
        read.
        """
        path = (folder / name).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            return None
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"the file {name} is over {MAX_FILE_BYTES} bytes: split it")
        return path.read_text("utf-8")

    return load


def _refuse_include(name: str) -> str | None:
    """Raise `ValueError`: without a folder of templates, no template can be included."""
    raise ValueError(f"it includes {name}, and MILLPOND_SMTP__TEMPLATES names no folder")


def _to_template_value(value: Any) -> Any:
    """Return a value for MiniJinja, with text in place of integers of over 128 bits."""
    match value:
        case dict():
            return {key: _to_template_value(entry) for key, entry in value.items()}
        case list():
            return [_to_template_value(entry) for entry in value]
        case int() if abs(value) > _MAX_WHOLE_NUMBER:
            return str(value)
    return value


class FilterFailed(Exception):
    """A filter of this file cannot use its text or its arguments. `file` is the template that calls it."""

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file


def _text_filter(name: str, convert: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that calls `convert` with the value as text. Any error of it is `FilterFailed`.

    MiniJinja passes null in place of a value that is not defined, so null is refused.
    """

    @pass_state
    def convert_text(state: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        try:
            if value is None:
                raise ValueError("its value is null or not defined: put default('', true) before it")
            return convert(value if isinstance(value, str) else str(value), *arguments, **options)
        except MemoryError:
            raise
        except Exception as error:
            raise FilterFailed(f"the filter {name} fails: {error}", state.name) from None

    return convert_text


def _truncate_text(
    text: str, length: int = 255, killwords: bool = False, end: str = "...", leeway: int = 5
) -> str:
    """Return a shortened text, as Jinja's filter `truncate` does, with arguments by position or name.

    Raises `ValueError` if `length` leaves no room for `end`, and for arguments of other types.
    """
    if type(length) is not int or type(leeway) is not int or leeway < 0:
        raise ValueError("its length and leeway are whole numbers, as in truncate(80)")
    if not isinstance(end, str) or length < len(end):
        raise ValueError(f"its length {length} has no room for its end, {end!r:.40}")
    if len(text) <= length + leeway:
        return text
    cut = text[: length - len(end)]
    return (cut if killwords else cut.rsplit(" ", 1)[0]) + end


def _urlize_text(text: str) -> str:
    """Return a text as escaped HTML, with links for the URLs that begin with http:// or https://."""
    return safe(_LINK.sub(r'<a href="\g<0>" rel="noopener">\g<0></a>', str(escape(text))))


def main() -> None:
    """Reply to requests until stdin ends, which it does when the worker process ends.

    Signals to the whole process group, as that of Ctrl-C, are ignored: the worker finishes its mails first.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # then SIGPROF ends this process
        reply = json.dumps(answer_request(json.loads(line))).encode()
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(reply + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

"""Render the subject and bodies of a mail from its templates, in a sandbox, with HTML escaped.

A template is in the contract itself, or a file in the configured folder; no name and no link leads out of
that folder. A template that fails is `BadInput`, since a retry would fail too.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, Template, TemplateNotFound, TemplateSyntaxError
from jinja2.loaders import BaseLoader, split_template_path

from millpond.tasks.email.contract import MAX_BODY_CHARACTERS, MAX_SUBJECT_CHARACTERS, SendEmail
from millpond.tasks.email.message import Content
from millpond.tasks.email.sandbox import Sandbox, rendered
from millpond.tasks.errors import BadInput


def content_of(job: SendEmail, *, folder: Path | None) -> Content:
    """Return the rendered subject and bodies. Raises `BadInput`, which names the template at fault."""
    values = job.context or {}
    subject = job.subject if job.context is None else _inline("subject", job.subject, values, folder)
    if len(subject) > MAX_SUBJECT_CHARACTERS:
        raise BadInput(f"the rendered subject is over {MAX_SUBJECT_CHARACTERS} characters: shorten it")
    if job.template is not None:
        return Content(subject, *_from_files(job.template, values, folder))
    if job.context is None:
        return Content(subject, job.text, job.html)
    text, html = (
        None if source is None else _inline(what, source, values, folder)
        for what, source in (("text", job.text), ("html", job.html))
    )
    return Content(subject, text, html)


def _from_files(name: str, values: dict[str, Any], folder: Path | None) -> tuple[str | None, str | None]:
    if folder is None:
        raise BadInput(
            f"template {name!r} cannot be used: set MILLPOND_SMTP__TEMPLATES to the folder it is in"
        )
    bodies = [_file(f"{name}.{ending}", values, folder) for ending in ("txt", "html")]
    if bodies == [None, None]:
        raise BadInput(
            f"there is neither {name}.txt nor {name}.html in {folder}: add one, or correct the name"
        )
    return bodies[0], bodies[1]


def _file(name: str, values: dict[str, Any], folder: Path) -> str | None:
    environment = _sandbox(folder, html=name.endswith(".html"))
    try:
        environment.loader.get_source(environment, name)  # type: ignore[union-attr]
    except TemplateNotFound:
        return None
    return _run(name, lambda: environment.get_template(name), values)


def _inline(what: str, source: str, values: dict[str, Any], folder: Path | None) -> str:
    return _run(what, lambda: _compiled(source, folder, what == "html"), values)


def _run(what: str, make: Any, values: dict[str, Any]) -> str:
    try:
        return rendered(make(), values)
    except TemplateSyntaxError as error:
        raise BadInput(
            f"the template of {what} cannot be read, line {error.lineno}: {error.message}"
        ) from None
    except TemplateNotFound as error:
        raise BadInput(
            f"the template of {what} includes {error}, which is not in the folder of templates"
        ) from None
    except Exception as error:  # a template is input, so each of its errors is a fault of the input
        raise BadInput(f"the template of {what} fails: {error or type(error).__name__}") from None


@lru_cache(maxsize=64)
def _compiled(source: str, folder: Path | None, html: bool) -> Template:
    """Return a compiled template, cached: a campaign repeats it in each of its messages."""
    return _sandbox(folder, html=html).from_string(source)


@lru_cache(maxsize=8)
def _sandbox(folder: Path | None, *, html: bool) -> Sandbox:
    return Sandbox(autoescape=html, loader=None if folder is None else _FolderLoader(folder))


class _FolderLoader(BaseLoader):
    """Loads templates from one folder, and follows no link out of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Any]:  # noqa: ARG002
        """Return the text of a template, its path, and a function that tells whether it is unchanged."""
        path = self._folder.joinpath(*split_template_path(template)).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise TemplateNotFound(template)
        if path.stat().st_size > 4 * MAX_BODY_CHARACTERS:
            raise BadInput(f"the template {template} is over {4 * MAX_BODY_CHARACTERS} bytes: split it")
        changed = path.stat().st_mtime_ns
        return (
            path.read_text("utf-8"),
            str(path),
            lambda: path.is_file() and path.stat().st_mtime_ns == changed,
        )

"""Render the subject and bodies of a mail from its templates, with HTML escaped.

A template is in the contract itself, or a file in the configured folder. No name and no link leads out of
that folder. A template that fails is `BadInput`, since a retry would fail too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from millpond.tasks.email.contract import MAX_SUBJECT_CHARACTERS, SendEmail
from millpond.tasks.email.message import Content
from millpond.tasks.email.template_process import template_process
from millpond.tasks.errors import BadInput


def render_content(job: SendEmail, *, folder: Path | None) -> Content:
    """Return the rendered subject and bodies. Raises `BadInput`, which names the template at fault."""
    values = job.context or {}
    subject = job.subject if job.context is None else _render_source("subject", job.subject, values, folder)
    if len(subject) > MAX_SUBJECT_CHARACTERS:
        raise BadInput(f"the rendered subject is over {MAX_SUBJECT_CHARACTERS} characters: shorten it")
    if job.template is not None:
        return Content(subject, *_render_files(job.template, values, folder))
    if job.context is None:
        return Content(subject, job.text, job.html)
    text, html = (
        None if source is None else _render_source(what, source, values, folder)
        for what, source in (("text", job.text), ("html", job.html))
    )
    return Content(subject, text, html)


def check_templates(jobs: Sequence[SendEmail], *, folder: Path | None) -> None:
    """Raise `BadInput` if no mail of these can be rendered: then the template is at fault, not a row."""
    fault = None
    for job in jobs:
        try:
            render_content(job, folder=folder)
            return
        except BadInput as error:
            fault = fault or error
    if fault is not None:
        raise BadInput(f"no mail of this campaign was sent: {fault}")


def _render_files(name: str, values: dict[str, Any], folder: Path | None) -> tuple[str | None, str | None]:
    """Return the text and the HTML of a named template.

    Return None if a form has no file. Raises `BadInput`.
    """
    if folder is None:
        raise BadInput(
            f"template {name!r} cannot be used: set MILLPOND_SMTP__TEMPLATES to the folder it is in"
        )
    text, html = (_render_template(f"{name}.{ending}", None, values, folder) for ending in ("txt", "html"))
    if text is None and html is None:
        raise BadInput(
            f"there is neither {name}.txt nor {name}.html in {folder}: add one, or correct the name"
        )
    return text, html


def _render_source(template_name: str, source: str, values: dict[str, Any], folder: Path | None) -> str:
    if "{" not in source:
        return source
    return _render_template(template_name, source, values, folder) or ""


def _render_template(
    template_name: str, source: str | None, values: dict[str, Any], folder: Path | None
) -> str | None:
    """Return the rendered text.

    Return None if the file does not exist. Raises `BadInput` with the template.
    """
    html = template_name == "html" or template_name.endswith(".html")
    try:
        return template_process().render(template_name, source, values, html=html, folder=folder)
    except BadInput as error:
        raise BadInput(f"the template of {template_name} fails: {error}") from None

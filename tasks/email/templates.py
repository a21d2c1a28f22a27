"""Render the subject and bodies of a mail from its templates, with HTML escaped.

A template is in the contract, or a file in the configured folder; no file outside of that is read. `BadInput`
is raised for a template that fails, because a retry would fail, too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from millpond.tasks.email.contract import MAX_SUBJECT_CHARACTERS, SendEmail
from millpond.tasks.email.message import Content
from millpond.tasks.email.template_process import template_process
from millpond.tasks.errors import BadInput


def render_content(job: SendEmail, *, folder: Path | None) -> Content:
    """Return the rendered subject and bodies of a mail. Raises `BadInput` with the template at fault."""
    values = job.context or {}
    subject = job.subject if job.context is None else _render_source("subject", job.subject, values, folder)
    if len(subject) > MAX_SUBJECT_CHARACTERS:
        raise BadInput(f"the rendered subject is over {MAX_SUBJECT_CHARACTERS} characters: shorten it")
    if job.template is not None:
        return Content(subject, *_render_files(job.template, values, folder))
    if job.context is None:
        return Content(subject, job.text, job.html)
    text, html = (
        None if source is None else _render_source(field, source, values, folder)
        for field, source in (("text", job.text), ("html", job.html))
    )
    return Content(subject, text, html)


def check_templates(jobs: Sequence[SendEmail], *, folder: Path | None) -> None:
    """Raise `BadInput` if none of these mails can be rendered: not a row is at fault, but the template."""
    first_error = None
    for job in jobs:
        try:
            render_content(job, folder=folder)
            return
        except BadInput as error:
            first_error = first_error or error
    if first_error is not None:
        raise BadInput(f"no mail of this campaign was sent: {first_error}")


def _render_files(name: str, values: dict[str, Any], folder: Path | None) -> tuple[str | None, str | None]:
    """Return the rendered text and HTML of a template in the folder. One of them is None if it has no file.

    Raises `BadInput` without a folder, or if both files are missing.
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
    """Return the rendered text of a template in the contract. Raises `BadInput`."""
    if "{" not in source:
        return source
    return _render_template(template_name, source, values, folder) or ""


def _render_template(
    template_name: str, source: str | None, values: dict[str, Any], folder: Path | None
) -> str | None:
    """Return the rendered text of a source, or else of a file in the folder. Raises `BadInput`.

    Return None if there is no such file.
    """
    html = template_name == "html" or template_name.endswith(".html")
    try:
        return template_process().render(template_name, source, values, html=html, folder=folder)
    except BadInput as error:
        raise BadInput(f"the template of {template_name} fails: {error}") from None

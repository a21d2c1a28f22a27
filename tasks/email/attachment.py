"""The attachments in a mail's contract: their storage URLs, and their names and types for the receiver."""

from mimetypes import MimeTypes
from pathlib import PurePosixPath
from typing import Annotated, Any, Self
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from millpond.tasks.email.control_characters import require_one_line

MAX_ATTACHMENTS = 20

#: The standard library's own table of types, without the files of the host, so that all workers have the
#: same.
_TYPES = MimeTypes(filenames=())
_UNKNOWN_TYPE = "application/octet-stream"
_COMPOSITE_TYPES = ("multipart/", "message/")


def _check_file_name(name: str) -> str:
    """Return a file name unchanged. Raises `ValueError` if a header or a receiver's disk cannot have it."""
    if "/" in name or "\\" in name or "=?" in name or name in (".", ".."):
        raise ValueError(
            f"{name!r} cannot be the name of an attached file: it must hold no slash, backslash or '=?'"
        )
    return require_one_line(name)


def guess_content_type(name: str) -> str:
    """Return the content type for the extension of a name.

    It is `application/octet-stream` if there is none, for a compressed file, and for a file of other parts.
    """
    content_type, compression = _TYPES.guess_type(name)
    # For a compressed file, the type is that of its content.
    if content_type is None or compression is not None or content_type.startswith(_COMPOSITE_TYPES):
        return _UNKNOWN_TYPE
    return content_type


def _refuse_composite_type(content_type: str) -> str:
    """Return a content type unchanged. Raises `ValueError` for a type that contains other parts."""
    if content_type.startswith(_COMPOSITE_TYPES):
        raise ValueError(f"{content_type} contains other parts: attach it as {_UNKNOWN_TYPE}")
    return content_type


FileName = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_check_file_name)]
ContentType = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,62}/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,62}$",
        to_lower=True,
    ),
    AfterValidator(_refuse_composite_type),
]


class Attachment(BaseModel):
    """An attachment: a file at a storage URL.

    The default of `name` is the last part of the URL. That of `content_type` follows from the extension of
    the name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(require_one_line)]
    name: FileName | None = None
    content_type: ContentType | None = None

    @property
    def file_name(self) -> str:
        """The name that the receiver sees."""
        return self.name or _find_name_in_url(self.url)

    @model_validator(mode="after")
    def _check_has_name(self) -> Self:
        """Raise `ValueError` for an attachment that has no name, and whose URL ends in no valid one."""
        if self.name is None:
            try:
                _check_file_name(_find_name_in_url(self.url))
            except ValueError as error:
                raise ValueError(
                    f"give the attachment a name, the URL's own cannot be used: {error}"
                ) from None
        return self


def _find_name_in_url(url: str) -> str:
    """Return the last part of a URL, percent-decoded and cut, or of a path; "attachment" if it is empty."""
    path = unquote(urlsplit(url).path) if "://" in url else url
    return PurePosixPath(path).name[:200] or "attachment"


def _attachment_from_url(value: Any) -> Any:
    """Return the fields of an attachment if the value is a URL. Return any other value unchanged."""
    return {"url": value} if isinstance(value, str) else value


def text_to_tuple(value: Any) -> Any:
    """Return a tuple of a single text. Return any other value unchanged."""
    return (value,) if isinstance(value, str) else value


#: Attachments. A text stands for an attachment with that URL.
Attachments = Annotated[
    tuple[Annotated[Attachment, BeforeValidator(_attachment_from_url)], ...],
    BeforeValidator(text_to_tuple),
    Field(max_length=MAX_ATTACHMENTS),
]

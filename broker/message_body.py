"""Bodies that are not plain JSON: other protocols, content types, compression, types of kombu's own."""

from base64 import b64decode
from collections.abc import Iterable
from typing import Any

from millpond.broker.message_compression import decompress

#: Positional arguments, keyword arguments, and Celery's part: callbacks, errbacks, chain and chord.
Arguments = tuple[Any, Any, dict[str, Any]]


class BadMessage(ValueError):
    """A message that no worker can run. `reason` becomes the reason of its dead letter."""

    def __init__(self, reason: str, error: object) -> None:
        super().__init__(str(error) or reason)
        self.reason = reason


#: The fields of Celery's part that hold signatures of the tasks that follow.
_SIGNATURES = frozenset(("callbacks", "errbacks", "chain", "chord"))

#: The key by which kombu's JSON marks a value of another type: a date, a UUID.
OWN_TYPE = b"__type__"


def decode_arguments(
    envelope: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]
) -> Arguments:
    """Return the arguments in the body of a message. Raises `BadMessage`."""
    try:
        decoded = _decode_body(envelope, headers, properties)
    except Exception as error:  # kombu's codecs and serializers each raise errors of their own
        raise BadMessage("cannot be decoded", f"{type(error).__name__}: {error}") from error
    if isinstance(decoded, dict) and "args" in decoded:  # protocol 1 and 2 in one, of Celery 3.1 and 4
        embed = {name: decoded.get(name) for name in ("callbacks", "errbacks", "chord")} | {"chain": None}
        decoded = (decoded["args"], decoded.get("kwargs", {}), embed)
    if not isinstance(decoded, list | tuple) or len(decoded) != 3:
        raise BadMessage("invalid message", "its body is no list of three: arguments, fields, embedded")
    args, kwargs, embed = decoded
    if not isinstance(args, list | tuple) or not isinstance(kwargs, dict):
        raise BadMessage("invalid message", "its arguments must be a list and an object")
    return args, kwargs, _check_embedded(embed) if isinstance(embed, dict) else {}


def _check_embedded(embed: dict[str, Any]) -> dict[str, Any]:
    """Return Celery's part of a body unchanged. Raises `BadMessage` if a signature in it is no object."""
    for name, part in embed.items():
        if not part or name not in _SIGNATURES:
            continue
        signatures = [part] if name == "chord" else part
        if not isinstance(signatures, list | tuple) or not all(isinstance(each, dict) for each in signatures):
            raise BadMessage("invalid message", f"its {name} must hold signatures, objects with a task")
    return embed


def _decode_body(envelope: dict[str, Any], headers: dict[str, Any], properties: dict[str, Any]) -> Any:
    """Decode a body by kombu: Base64, compression, content type. Raises any error of a codec."""
    from kombu.serialization import loads

    body = envelope["body"]
    body = b64decode(body) if properties.get("body_encoding") == "base64" else body.encode()
    if headers.get("compression"):
        body = decompress(body, headers["compression"])
    content_type, encoding = envelope.get("content-type"), envelope.get("content-encoding")
    return loads(body, content_type, encoding, accept=accepted)


#: The content types that this process accepts.
accepted: frozenset[str] = frozenset({"application/json"})


def accept_content(content_types: Iterable[str]) -> None:
    """Accept these content types in this process from now on, and refuse all others."""
    global accepted
    accepted = frozenset(content_types)

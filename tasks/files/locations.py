"""Resolve a storage URL to a location, and refuse one outside the configured roots.

All symbolic links of a local path are resolved, and the result must be below a root. Later, the resolved path
is opened without following a link (`local.py`), so a link that was made in the meantime is refused.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from millpond.tasks.errors import BadInput, OutsideRoots

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
#: The schemes of local files. None is that of a path.
_LOCAL_SCHEMES = (None, "file", "local")
#: The end of the names of partials: of outputs that are not complete.
PARTIAL_SUFFIX = ".millpond-part"


@dataclass(frozen=True)
class LocalLocation:
    """A file or folder on a local disk: its resolved root, and the parts of its path below the root."""

    url: str
    root: str
    parts: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The key that is equal for two locations of one file."""
        return (self.root, *self.parts)


@dataclass(frozen=True)
class RemoteLocation:
    """An object in a storage service: the protocol, as fsspec names it, and the path."""

    url: str
    protocol: str
    path: str

    @property
    def key(self) -> tuple[str, ...]:
        """The key that is equal for two locations of one object."""
        return (self.protocol, self.path)


Location = LocalLocation | RemoteLocation


def locate(url: str, roots: tuple[str, ...], *, to_write: bool = False) -> Location:
    """Return the location of a URL or path. A relative path begins at the first of the roots.

    With `to_write`, a link as the last part is not resolved, because the output replaces it. Raises
    `OutsideRoots` if the location is below no root, and `BadInput` if no file can have this name.
    """
    if not roots:
        raise OutsideRoots("file tasks are refused: no root is configured; set MILLPOND_FILES__ROOTS")
    scheme = _parse_scheme(url)
    if scheme is None and not url.startswith("/"):
        first_root = roots[0]
        if _parse_scheme(first_root) not in _LOCAL_SCHEMES:
            return _locate_remote(f"{first_root.rstrip('/')}/{url}", url, roots)
        return _locate_local(os.path.join(_parse_local_path(first_root), url), url, roots, to_write)  # noqa: PTH118 - no normalisation
    if scheme in _LOCAL_SCHEMES:
        return _locate_local(_parse_local_path(url), url, roots, to_write)
    return _locate_remote(url, url, roots)


def _locate_local(path: str, url: str, roots: tuple[str, ...], to_write: bool) -> LocalLocation:
    """Return the location of a local path. The errors name `url`. Raises `OutsideRoots` and `BadInput`."""
    if "\0" in path:
        raise BadInput(f"{url} holds a zero byte: no file has such a name")
    if ".." in path.split("/"):
        raise OutsideRoots(f"{url} climbs out with '..': name the file from its root")
    path = path.rstrip("/") or "/"
    folder, name = os.path.split(path)
    if to_write and name.endswith(PARTIAL_SUFFIX):
        raise BadInput(
            f"{url} ends in {PARTIAL_SUFFIX}, which is kept for what is half written: choose another name"
        )
    real_path = f"{os.path.realpath(folder).rstrip('/')}/{name}" if to_write else os.path.realpath(path)
    for root in roots:
        if _parse_scheme(root) not in _LOCAL_SCHEMES:
            continue
        real_root = os.path.realpath(_parse_local_path(root))
        if real_path.startswith(f"{real_root.rstrip('/')}/"):
            parts = tuple(part for part in real_path[len(real_root) :].split("/") if part not in ("", "."))
            if parts:
                return LocalLocation(url, real_root, parts)
        elif real_path == real_root:
            raise BadInput(f"{url} is a root itself: name a file below it")
    raise OutsideRoots(
        f"{url} is outside the configured roots: move it below one, or add its folder to the roots"
    )


def _locate_remote(full_url: str, url: str, roots: tuple[str, ...]) -> RemoteLocation:
    """Return the location of an object's full URL. The errors name `url`. Raises `OutsideRoots`."""
    scheme = _parse_scheme(full_url)
    assert scheme is not None
    parts = full_url.split("://", 1)[1].split("/")
    # "::" chains file systems in fsspec: the second one would be outside every root.
    if "::" in full_url or "." in parts or ".." in parts:
        raise OutsideRoots(f"{url} holds '.', '..' or '::': name the object from its root")
    parts = [part for part in parts if part]
    for root in roots:
        if _parse_scheme(root) != scheme:
            continue
        root_parts = [part for part in root.split("://", 1)[1].split("/") if part]
        if parts[: len(root_parts)] == root_parts and len(parts) > len(root_parts):
            return RemoteLocation(url, scheme, "/".join(parts))
    raise OutsideRoots(
        f"{url} is outside the configured roots: move it below one, or add its folder to the roots"
    )


def _parse_scheme(url: str) -> str | None:
    """Return the scheme of a URL in lower case. Return None for a path."""
    match = _SCHEME.match(url)
    return match.group(1).lower() if match else None


def _parse_local_path(url: str) -> str:
    """Return the path of a local URL, percent-decoded. Return a path unchanged. Raises `BadInput`."""
    if _parse_scheme(url) is None:
        return url
    path = os.fsdecode(unquote_to_bytes(url.split("://", 1)[1]))
    if not path.startswith("/"):
        raise BadInput(f"{url} names a host: write file:///path with three slashes")
    return path

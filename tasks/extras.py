"""The extras of Millpond: their missing packages, and the command that installs them.

The packages of an extra are listed in pyproject.toml only, and read from the metadata of the installed
package.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

from millpond.tasks.errors import StartError

#: The extras with the packages that the handlers of a queue need.
OF_QUEUES = frozenset({"email", "files"})


def require_extras(purpose: str, *extras: str) -> None:
    """Raise `StartError`, with all missing packages, unless these extras are installed."""
    if lacking := missing_packages(*extras):
        raise StartError(
            f"{purpose} needs {list_packages(lacking)}. Install with: {install_command(lacking)}"
        )


def missing_packages(*extras: str) -> dict[str, list[str]]:
    """Return the packages that are not installed, by extra. Complete extras are left out."""
    packages = {extra: [name for name in _packages_of(extra) if not _is_installed(name)] for extra in extras}
    return {extra: names for extra, names in packages.items() if names}


def extras_of_queues(queues: Iterable[str]) -> list[str]:
    """Return the extras that the shipped kinds of these queues need."""
    return sorted(OF_QUEUES.intersection(queues))


def extra_of_module(module: str) -> str | None:
    """Return the extra that installs a module. Return None if no extra installs it."""
    top = module.partition(".")[0]
    for extra in sorted({*_metadata_field("Provides-Extra")} - {"all"}):
        if any(name == top or name.startswith(f"{top}-") for name in _packages_of(extra)):
            return extra
    return None


def list_packages(lacking: dict[str, list[str]]) -> str:
    """Return the missing packages as text, by extra."""
    return "; ".join(f"{', '.join(names)} (extra {extra!r})" for extra, names in lacking.items())


def install_command(extras: Iterable[str]) -> str:
    """Return the command that adds extras to this environment, from the source of the installed Millpond."""
    wanted, pip = ",".join(extras), shutil.which("pip")
    is_ours = pip is not None and Path(pip).parent == Path(sys.prefix) / "bin"
    program = "pip" if is_ours else f"{shlex.quote(sys.executable)} -m pip"
    origin, editable = _install_source()
    if origin == str(Path.cwd()):
        origin = "."
    return f"{program} install {'-e ' if editable else ''}{shlex.quote(f'{origin}[{wanted}]')}"


def _install_source() -> tuple[str, bool]:
    """Return the source of this installation, a folder, a wheel or its name, and whether it is editable."""
    try:
        text = metadata.distribution("millpond").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        text = None
    record = json.loads(text) if text else {}
    url = urlsplit(record.get("url", ""))
    if url.scheme != "file":
        return "millpond", False
    return unquote(url.path), bool(record.get("dir_info", {}).get("editable"))


def _packages_of(extra: str) -> Iterator[str]:
    """Yield the packages that an extra adds."""
    from packaging.requirements import Requirement

    for line in _metadata_field("Requires-Dist"):
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield requirement.name


def _metadata_field(field: str) -> list[str]:
    """Return the lines of a field of the metadata. There are none if Millpond is not installed."""
    try:
        return [str(line) for line in metadata.metadata("millpond").get_all(field) or ()]
    except metadata.PackageNotFoundError:
        return []


def _is_installed(package: str) -> bool:
    """True if a distribution is installed here."""
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True

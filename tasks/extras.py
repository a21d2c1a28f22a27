"""Find the packages that Millpond's extras lack on this machine, and the command that installs them.

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

#: The queues whose shipped kinds need the extra of the same name.
_QUEUES_WITH_EXTRA = frozenset({"email", "files"})


def require_extras(purpose: str, *extras: str) -> None:
    """Raise `StartError` if packages of these extras are missing. Its text begins with `purpose`."""
    if missing := missing_packages(*extras):
        raise StartError(
            f"{purpose} needs {list_packages(missing)}. Install with: {install_command(missing)}"
        )


def missing_packages(*extras: str) -> dict[str, list[str]]:
    """Return the packages that are not installed, by extra. An extra without such packages is left out."""
    packages = {extra: [name for name in _packages_of(extra) if not _is_installed(name)] for extra in extras}
    return {extra: names for extra, names in packages.items() if names}


def extras_of_queues(queues: Iterable[str]) -> list[str]:
    """Return the extras that the shipped kinds of these queues need."""
    return sorted(_QUEUES_WITH_EXTRA.intersection(queues))


def extra_of_module(module: str) -> str | None:
    """Return the extra that installs a module, by the names of its packages. Return None if none does."""
    package = module.partition(".")[0]
    for extra in sorted({*_metadata_field("Provides-Extra")} - {"all"}):
        if any(name == package or name.startswith(f"{package}-") for name in _packages_of(extra)):
            return extra
    return None


def list_packages(packages: dict[str, list[str]]) -> str:
    """Return packages by extra as text: `pyvips, pyarrow (extra 'files')`."""
    return "; ".join(f"{', '.join(names)} (extra {extra!r})" for extra, names in packages.items())


def install_command(extras: Iterable[str]) -> str:
    """Return the command of pip that installs extras here, from the source that Millpond came from."""
    pip = shutil.which("pip")
    is_ours = pip is not None and Path(pip).parent == Path(sys.prefix) / "bin"
    program = "pip" if is_ours else f"{shlex.quote(sys.executable)} -m pip"
    source, editable = _install_source()
    if source == str(Path.cwd()):
        source = "."
    requirement = shlex.quote(f"{source}[{','.join(extras)}]")
    return f"{program} install {'-e ' if editable else ''}{requirement}"


def _install_source() -> tuple[str, bool]:
    """Return what Millpond was installed from, and whether it is editable: a folder, a wheel, or its name."""
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
    """Yield the packages that an extra adds on this platform."""
    from packaging.requirements import Requirement

    for line in _metadata_field("Requires-Dist"):
        requirement = Requirement(line)
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield requirement.name


def _metadata_field(field: str) -> list[str]:
    """Return the values of a field in Millpond's metadata. There are none if Millpond is not installed."""
    try:
        return [str(line) for line in metadata.metadata("millpond").get_all(field) or ()]
    except metadata.PackageNotFoundError:
        return []


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True

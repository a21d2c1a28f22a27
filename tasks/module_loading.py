"""Import the modules named in the settings. They declare kinds when they are imported."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from millpond.tasks.errors import SettingsError

#: The top-level names of Millpond.
OWN = ("millpond",)


def import_modules(modules: Iterable[str], *, setting: str = "kinds") -> None:
    """Import the modules, also from the working directory.

    Raises `SettingsError` if one does not exist or fails to import, which then is the cause.
    """
    for module in modules:
        check_module(module, setting=setting)
        try:
            importlib.import_module(module)
        except Exception as error:
            raise SettingsError(
                f"{setting} names {module!r}, which cannot be imported: {type(error).__name__}: {error}"
            ) from error


def check_module(module: str, *, setting: str = "kinds") -> None:
    """Raise `SettingsError` unless the module, or the package it names, exists. Import nothing."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(_position_for_applications(), here)
    top, _, rest = module.partition(".")
    if ":" in module:
        raise SettingsError(
            f"{setting} names {module!r}: name the module alone, {module.partition(':')[0]!r}"
        )
    if rest == "py":
        raise SettingsError(f"{setting} names {module!r}, a file: name the module, {top!r}")
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        raise SettingsError(
            f"{setting} names {module!r}, and no such module is installed or lies in {here}: "
            "give the command where it lies, or put its folder on PYTHONPATH"
        )
    if hidden := _shadowed_file(top):
        raise SettingsError(
            f"{setting} names {module!r}, and {hidden} is not found, for Python or Millpond has a module "
            "of this name: rename yours"
        )


def _position_for_applications() -> int:
    """Return the position in `sys.path` after the standard library and before installed packages.

    An application's own `broker.py` comes before PyPI's `broker`. Its `calendar.py` must not hide Python's
    from a library.
    """
    for position, entry in enumerate(sys.path):
        if entry.rstrip("/").endswith(("site-packages", "dist-packages")):
            return position
    return len(sys.path)


def _shadowed_file(top: str) -> Path | None:
    """Return the file in the working directory that a module of Millpond or Python shadows.

    None if there is none.
    """
    if top not in (*OWN, *sys.stdlib_module_names):
        return None
    for file in (Path.cwd() / f"{top}.py", Path.cwd() / top / "__init__.py"):
        if file.exists() and not _imports_file(top, file):
            return file
    return None


def _imports_file(top: str, file: Path) -> bool:
    module = sys.modules.get(top)
    spec = importlib.util.find_spec(top) if module is None else module.__spec__
    return spec is not None and Path(spec.origin or "").is_file() and file.samefile(spec.origin or "")

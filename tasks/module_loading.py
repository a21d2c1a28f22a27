"""Import the modules named in the settings. They declare kinds when they are imported."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from millpond.tasks.errors import SettingsError


def import_modules(modules: Iterable[str], *, setting: str = "kinds") -> None:
    """Import the modules, also from the working directory. `setting` is the setting that names them.

    Raises `SettingsError` if one does not exist or if its import raises; that error is then the cause.
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
    """Raise `SettingsError` unless the top-level module of a name can be imported. Import nothing.

    Adds the working directory to `sys.path`.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(_position_for_applications(), folder)
    top, _, submodule = module.partition(".")
    if not top:
        raise SettingsError(
            f"{setting} names {module!r}, which is no module: write its whole name, as in shop.tasks"
        )
    if ":" in module:
        raise SettingsError(
            f"{setting} names {module!r}: name the module alone, {module.partition(':')[0]!r}"
        )
    if submodule == "py":
        raise SettingsError(f"{setting} names {module!r}, a file: name the module, {top!r}")
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        raise SettingsError(
            f"{setting} names {module!r}, and no such module is installed or lies in {folder}: "
            "give the command where it lies, or put its folder on PYTHONPATH"
        )
    if shadowed := _shadowed_file(top):
        raise SettingsError(
            f"{setting} names {module!r}, and {shadowed} is not found, for Python or Millpond has a module "
            "of this name: rename yours"
        )


def _position_for_applications() -> int:
    """Return the position in `sys.path` after the standard library and before installed packages.

    At this position, an application's `broker.py` is found before PyPI's `broker`, and its `calendar.py` does
    not hide the standard library's `calendar`.
    """
    for position, entry in enumerate(sys.path):
        if entry.rstrip("/").endswith(("site-packages", "dist-packages")):
            return position
    return len(sys.path)


def _shadowed_file(top: str) -> Path | None:
    """Return the file of this module in the working directory if Millpond's or Python's own module hides it.

    Return None if there is no such file, or if it would be imported.
    """
    if top not in ("millpond", *sys.stdlib_module_names):
        return None
    for file in (Path.cwd() / f"{top}.py", Path.cwd() / top / "__init__.py"):
        if file.exists() and not _imports_file(top, file):
            return file
    return None


def _imports_file(top: str, file: Path) -> bool:
    """True if `import top` imports this file."""
    module = sys.modules.get(top)
    spec = importlib.util.find_spec(top) if module is None else module.__spec__
    return spec is not None and Path(spec.origin or "").is_file() and file.samefile(spec.origin or "")

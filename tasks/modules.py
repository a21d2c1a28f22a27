"""Import the modules that a person names in the settings: they declare kinds as they are imported."""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from tasks.errors import SettingsError


def declare(modules: Iterable[str], *, setting: str = "kinds") -> None:
    """Import the modules, also from the folder where the command was given.

    Raises `SettingsError` where one is not there, or cannot be imported: what it raised is the cause.
    """
    for module in modules:
        find(module, setting=setting)
        try:
            importlib.import_module(module)
        except Exception as error:
            raise SettingsError(
                f"{setting} names {module!r}, which cannot be imported: {type(error).__name__}: {error}"
            ) from error


def find(module: str, *, setting: str = "kinds") -> None:
    """See that there is such a module, or a package that may have it, and import nothing of it."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # behind all else: a file of the user's hides nothing that is installed
    top = module.partition(".")[0]
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        raise SettingsError(
            f"{setting} names {module!r}, and no such module is installed or lies in {here}: "
            "give the command where it lies, or put its folder on PYTHONPATH"
        )

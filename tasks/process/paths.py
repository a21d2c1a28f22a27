"""The folders of Millpond on this machine, for short-lived files and for data that is kept.

They are not in settings.py, because a health check runs every few seconds and must not load pydantic.
"""

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

#: The flags with which a folder is opened. A link to a folder is refused.
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def scratch_folder() -> Path:
    """Return the folder for short-lived files: `MILLPOND_SCRATCH`, or the system's temporary folder."""
    return Path(os.environ.get("MILLPOND_SCRATCH") or tempfile.gettempdir())


def private_scratch_folder() -> Path:
    """Return the path of this user's own folder in the scratch folder, which may be missing."""
    return scratch_folder() / f"millpond-{os.getuid()}"


def open_private_scratch() -> int:
    """Make this user's own folder below the scratch folder, with mode 0700, and return its descriptor.

    The scratch folder is shared with other users. Raises `PermissionError` if the user's folder is a link,
    belongs to another user, or is writable for others. If others can only read it, its mode is corrected.
    """
    folder = private_scratch_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    reason = "it is a link or belongs to another user: remove it, or set MILLPOND_SCRATCH"
    try:
        descriptor = os.open(folder, _FOLDER_FLAGS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EACCES):
            raise PermissionError(errno.EACCES, reason, str(folder)) from error
        raise
    status = os.fstat(descriptor)
    if status.st_uid == os.getuid() and stat.S_IMODE(status.st_mode) & 0o022 == 0:
        if stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(descriptor, 0o700)
        return descriptor
    os.close(descriptor)
    open_to_others = "others may write to it: chmod 700 it, or set MILLPOND_SCRATCH"
    raise PermissionError(
        errno.EACCES, open_to_others if status.st_uid == os.getuid() else reason, str(folder)
    )


def open_private_folder(folder_name: str) -> int:
    """Make a folder in this user's own scratch folder, and return its descriptor.

    Raises `PermissionError` as `open_private_scratch` does.
    """
    scratch = open_private_scratch()
    try:
        with suppress(FileExistsError):
            os.mkdir(folder_name, 0o700, dir_fd=scratch)
        return os.open(folder_name, _FOLDER_FLAGS, dir_fd=scratch)
    finally:
        os.close(scratch)


def is_own_folder(path: Path) -> bool:
    """True if the path is a folder of this user, and no link to one. Raises `OSError` if it is missing."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def state_folder() -> Path:
    """Return the folder in which `millpond up` keeps its data: `~/.local/state/millpond`."""
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "millpond"

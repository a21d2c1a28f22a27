"""The style sheet and the scripts of the pages."""

import hashlib
from pathlib import Path

from tornado.web import StaticFileHandler

from millpond.monitor.pages.handler import PageHandler

FOLDER = Path(__file__).parents[1] / "static"


class StaticFiles(PageHandler, StaticFileHandler):
    """Serves the files of `monitor/static` to users that may see the pages."""


def file_versions() -> dict[str, str]:
    """Return a hash of each file's content, by name. With it in the URL, browsers may cache the file."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        for file in FOLDER.iterdir()
        if file.is_file()
    }

"""Serve the style and the script of the pages."""

import hashlib
from pathlib import Path

from tornado.web import StaticFileHandler

from millpond.monitor.pages.handler import Handler

FOLDER = Path(__file__).parents[1] / "static"


class OwnFiles(Handler, StaticFileHandler):
    """Serve a file of `monitor/static`, to those who may see the pages."""


def versions() -> dict[str, str]:
    """Return a mark of each file's content, so that a browser may keep it while it is the same."""
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:12]
        for file in FOLDER.iterdir()
        if file.is_file()
    }

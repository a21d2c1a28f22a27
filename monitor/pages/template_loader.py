"""Load the templates of Millpond, and those of Flower with additions.

Millpond's pages are added to Flower's navigation bar. Flower's pages that are made from events get a note
that they show a sample, while they do.
"""

from pathlib import Path
from typing import Any

from tornado.template import Loader, Template

TEMPLATES = Path(__file__).parents[1] / "templates"

#: The end of Flower's list of pages.
_END_OF_TABS = "</ul>"
#: Flower's pages that count or list tasks, and the start of their content.
_PAGES_FROM_EVENTS = ("tasks.html", "workers.html")
_HEADER = '<header class="page-header">'
_SAMPLE = '{% module Template("sample.html") %}'
_MILLPOND_TABS = '{% module Template("tabs.html", active_tab=active_tab) %}'


class PageLoader(Loader):
    """A loader that looks into Millpond's folder of templates before Flower's."""

    def _create_template(self, name: str) -> Any:
        """Return Millpond's template of this name, or Flower's with the additions for it."""
        own = TEMPLATES / name
        if own.is_file():
            return Template(own.read_text(), name=name, loader=self)
        text = (Path(self.root) / name).read_text()
        if name == "navbar.html":
            text = text.replace(_END_OF_TABS, _MILLPOND_TABS + _END_OF_TABS, 1)
        elif name in _PAGES_FROM_EVENTS:
            text = text.replace(_HEADER, _SAMPLE + _HEADER, 1)
        return Template(text, name=name, loader=self)

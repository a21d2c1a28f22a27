"""Load templates: Millpond's own, else Flower's, whose navigation bar gets Millpond's pages."""

from pathlib import Path
from typing import Any

from tornado.template import Loader, Template

OWN = Path(__file__).parents[1] / "templates"

#: Where the list of Flower's own pages ends.
_END_OF_TABS = "</ul>"
_OUR_TABS = '{% module Template("tabs.html", active_tab=active_tab) %}'


class PageLoader(Loader):
    """Look into Millpond's folder of templates before Flower's."""

    def __init__(self, flowers: str) -> None:
        super().__init__(flowers)

    def _create_template(self, name: str) -> Any:
        own = OWN / name
        if own.is_file():
            return Template(own.read_text(), name=name, loader=self)
        text = (Path(self.root) / name).read_text()
        if name == "navbar.html":
            text = text.replace(_END_OF_TABS, _OUR_TABS + _END_OF_TABS, 1)
        return Template(text, name=name, loader=self)

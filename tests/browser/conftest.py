"""Fixtures: one browser for a module, and pages of it."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from millpond.worker.local.embedded import Embedded

LOGIN = {"username": "ann", "password": "secret"}
QUIET = [
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


@pytest.fixture(scope="module")
def chromium(program: Callable[[str], str], missing: Callable[[str], NoReturn]) -> Iterator[Any]:
    """Run one browser for the module."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    with sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program("chromium"), args=QUIET)
        yield running
        running.close()


@pytest.fixture
def open_page(chromium: Any, pond: Embedded) -> Iterator[Callable[..., Any]]:
    """Open pages of ann's; one on which a script of a text runs, or is stopped, fails the test."""
    contexts: list[Any] = []
    faults: list[str] = []

    def opened(*, scheme: str = "light", width: int = 1280) -> Any:
        size = {"width": width, "height": 800}
        contexts.append(
            chromium.new_context(
                base_url=pond.flower_url, http_credentials=LOGIN, color_scheme=scheme, viewport=size
            )
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []

"""The supervisor's responses over HTTP, by their paths."""

import urllib.error
import urllib.request

import pytest

from millpond.worker.report.health_server import serve_health


@pytest.mark.parametrize(
    ("path", "status"), [("/metrics", 200), ("/metrics?pool=email", 200), ("/live?verbose", 503), ("/a", 404)]
)
def test_a_query_after_the_path_changes_nothing(path: str, status: int) -> None:
    """The parameters of a scraper are ignored. Without a process no check succeeds."""
    with serve_health("127.0.0.1", 0, services=["email"]) as port:
        try:
            found = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10)
        except urllib.error.HTTPError as refused:
            found = refused
        with found:
            assert found.status == status

"""Rules for every request, applied before any handler, also for Flower's own pages, its API and its files.

1. If there are no logins, only requests to a host name of loopback are served. This refuses a foreign page
   whose host name resolves to this machine (DNS rebinding).
2. Logins may have any characters. Flower compares them as ASCII, so they are encoded in ASCII here.
3. Behind a proxy under a sub-path, requests are handled in the same way whether the proxy strips the sub-path
   or not.
4. A name is one segment of a path: a queue, a batch or a worker may be called `a/b`.
"""

from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

from flower.app import Flower
from tornado.httputil import HTTPHeaders
from tornado.web import RequestHandler

from millpond.tasks.process.loopback import is_loopback


class GuardedFlower(Flower):
    """Flower with one guard before all of its handlers."""

    def find_handler(self, request: Any, **kwargs: Any) -> Any:
        """Return the handler of a request, or `ForeignHost` for one that is refused.

        Changes the request: its login becomes ASCII, and its path begins with the sub-path.
        """
        has_logins = bool(self.options.basic_auth or self.options.auth)
        if not has_logins and not is_loopback(_host_name(request.host)):
            return self.get_handler_delegate(request, ForeignHost)
        _make_login_ascii(request.headers)
        prefix = path_prefix(self.options.url_prefix)
        if prefix and request.path in ("", prefix):
            request.path = f"{prefix}/"
        elif prefix and not request.path.startswith(f"{prefix}/"):
            request.path = prefix + request.path
        return super().find_handler(request, **kwargs)

    def reverse_url(self, name: str, *args: str) -> str:
        """Return the path of a page. Each of `args` is one segment of the path, also if it has a slash."""
        path: str = super().reverse_url(name, *(quote(arg, safe="") for arg in args))
        return path.replace("%25", "%")  # Tornado encodes the arguments again, except for slashes


class ForeignHost(RequestHandler):
    """Refuse a request to a foreign host name."""

    def prepare(self) -> None:
        """Respond with 403."""
        self.set_status(403)
        self.finish("Without a login, Flower answers on localhost alone")

    def check_xsrf_cookie(self) -> None:
        """Check nothing: this handler changes nothing."""


def ascii_login(login: str) -> str:
    """Return a login, user:password, percent-encoded in ASCII. Different logins stay different."""
    return quote(login, safe=":")


def path_prefix(prefix: str | None) -> str:
    """Return the sub-path with one slash before it, as `/ops/flower`, or "" if there is none."""
    return f"/{prefix.strip('/')}" if prefix and prefix.strip("/") else ""


def _make_login_ascii(headers: HTTPHeaders) -> None:
    """Encode the login in the headers of a request in ASCII. A header that is not a login stays as it is."""
    scheme, _, encoded = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return
    with suppress(ValueError):  # Flower refuses a text that is no base64
        credentials = b64decode(encoded)
        try:
            login = credentials.decode()
        except UnicodeDecodeError:
            login = credentials.decode("latin-1")  # as older browsers send it
        headers["Authorization"] = f"Basic {b64encode(ascii_login(login).encode()).decode()}"


def _host_name(host: str) -> str:
    """Return the name of a `Host` header without its port, or "" if it is malformed."""
    with suppress(ValueError):
        return urlsplit(f"//{host}").hostname or ""
    return ""

"""The rules of the whole server, applied before any handler: Flower's own pages, its API and its files too.

1. Without a login, only requests to a host name of loopback are served: a page elsewhere whose name was
   pointed at this machine (DNS rebinding) is refused.
2. Logins may have any characters: Flower compares them as ASCII, so here they become ASCII.
3. Behind a proxy under a sub-path, requests are the same whether the proxy strips the sub-path or not.
4. A name within a path is encoded whole: a queue, a batch or a worker may be called `a/b`.
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

    def find_handler(self, request: Any, **more: Any) -> Any:
        """Return the handler of a request that is let in, or one that refuses it."""
        has_logins = bool(self.options.basic_auth or self.options.auth)
        if not has_logins and not is_loopback(_host_name(request.host)):
            return self.get_handler_delegate(request, ForeignHost)
        _make_login_ascii(request.headers)
        prefix = path_prefix(self.options.url_prefix)
        if prefix and request.path in ("", prefix):
            request.path = f"{prefix}/"
        elif prefix and not request.path.startswith(f"{prefix}/"):
            request.path = prefix + request.path
        return super().find_handler(request, **more)

    def reverse_url(self, name: str, *args: str) -> str:
        """Return the path of a page. Each of `args` stays one segment of it."""
        path: str = super().reverse_url(name, *(quote(each, safe="") for each in args))
        return path.replace("%25", "%")  # Tornado has encoded them again, and leaves a slash as it is


class ForeignHost(RequestHandler):
    """Refuse a request to a foreign host name."""

    def prepare(self) -> None:
        """Respond with 403."""
        self.set_status(403)
        self.finish("Without a login, Flower answers on localhost alone")

    def check_xsrf_cookie(self) -> None:
        """Pass: nothing is changed."""


def ascii_login(login: str) -> str:
    """Return a login, user:password, in ASCII. No two logins become the same."""
    return quote(login, safe=":")


def path_prefix(prefix: str | None) -> str:
    """Return the sub-path as a prefix of paths: `/ops/flower`, or nothing."""
    return f"/{prefix.strip('/')}" if prefix and prefix.strip("/") else ""


def _make_login_ascii(headers: HTTPHeaders) -> None:
    """Replace the login of a request by its form in ASCII, because Flower refuses any other."""
    kind, _, encoded = headers.get("Authorization", "").partition(" ")
    if kind.lower() != "basic":
        return
    with suppress(ValueError):  # a text that is no base64 is refused by Flower
        sent = b64decode(encoded)
        try:
            login = sent.decode()
        except UnicodeDecodeError:
            login = sent.decode("latin-1")  # as older browsers send it
        headers["Authorization"] = f"Basic {b64encode(ascii_login(login).encode()).decode()}"


def _host_name(host: str) -> str:
    with suppress(ValueError):
        return urlsplit(f"//{host}").hostname or ""
    return ""

"""Answer a request for a page: let in whom Flower lets in, read the broker off the event loop, render.

Whoever may see Flower may see these pages. Changing something takes more: a login (without any, Flower
shows and changes nothing, as its own API does), no read-only mode, and a token that only a page of ours
has given out.
"""

import getpass
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flower.views import BaseHandler
from tornado.web import HTTPError, RequestHandler, authenticated

from millpond.broker import audit
from millpond.broker.connection import Store
from millpond.broker.errors import MillpondError
from millpond.broker.stats.history import HistoryCache
from millpond.monitor import formatting
from millpond.tasks.errors import BrokerAway
from millpond.tasks.pools import Table

T = TypeVar("T")

#: Nothing of another origin, and no script that is not a file of Flower's or ours.
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)


class Handler(BaseHandler):
    """Answer for one of Millpond's pages."""

    def set_default_headers(self) -> None:
        """Let no page be framed, kept or scripted by others."""
        super().set_default_headers()
        self.clear_header("Access-Control-Allow-Origin")
        self.set_header("Content-Security-Policy", CONTENT_POLICY)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "same-origin")

    @authenticated
    def prepare(self) -> None:
        """Refuse who is not logged in, and, where nobody can, who comes by a foreign name of this machine."""
        if not self.has_logins and not _names_loopback(self.request.host):
            # A page elsewhere whose name was pointed at this machine (DNS rebinding) is refused.
            raise HTTPError(403, "Without a login, Flower answers on localhost alone")

    def check_xsrf_cookie(self) -> None:
        """Refuse a form that no page of ours gave out, whichever way the user is known."""
        super().check_xsrf_cookie()
        RequestHandler.check_xsrf_cookie(self)

    # What may be done

    @property
    def has_logins(self) -> bool:
        """Say whether Flower asks who somebody is."""
        options = self.application.options
        return bool(options.basic_auth or options.auth)

    @property
    def may_change(self) -> bool:
        """Say whether this user may change something."""
        allowed = self.has_logins or self.unauthenticated_api
        return bool(allowed) and not self.application.options.read_only

    def must_be_allowed(self) -> None:
        """Raise 403 when this user may only look."""
        if not self.may_change:
            raise HTTPError(403, self.why_not)

    @property
    def why_not(self) -> str:
        """Say why nothing may be changed."""
        if self.application.options.read_only:
            return "Read only mode is enabled"
        return "Read only, for nobody can log in here: set MILLPOND_FLOWER_BASIC_AUTH"

    @property
    def who(self) -> str:
        """Name the user, for the audit."""
        user = self.current_user
        if isinstance(user, str):
            return user
        with suppress(ValueError, IndexError):
            credentials = b64decode(self.request.headers.get("Authorization", "").split()[1]).decode()
            return credentials.partition(":")[0]
        return getpass.getuser()

    # The broker

    @property
    def store(self) -> Store:
        """Return the broker that the application watches."""
        store: Store = self.application.store
        return store

    @property
    def past(self) -> HistoryCache:
        """Return the last hour, as far as it was read."""
        past: HistoryCache = self.application.past
        return past

    @property
    def table(self) -> Table:
        """Return the pools table."""
        table: Table = self.application.table
        return table

    async def ask(self, question: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call what waits for the broker in a thread. Raises 503 when the broker is away."""

        def call() -> T:
            return question(*args, **kwargs)

        try:
            answer: T = await self.application.io_loop.run_in_executor(None, call)
        except BrokerAway as away:
            raise HTTPError(503, str(away)) from away
        except MillpondError as error:
            raise HTTPError(400, str(error)) from error
        return answer

    async def note(self, what: str) -> None:
        """Write down what this user changed."""
        await self.ask(audit.record, self.store, f"{self.who} by Flower from {self.request.remote_ip}", what)

    # Answering

    def asked(self, name: str) -> str | None:
        """Return a field of the query or the form as it was sent; None when it is empty or not there."""
        value = RequestHandler.get_argument(self, name, None)
        return value or None

    def own_file(self, name: str) -> str:
        """Return where a file of ours is, by a name that changes with its content."""
        version = self.application.settings["own_versions"][name]
        return f"{self.reverse_url('own-file', name)}?v={version}"

    def show(self, template: str, *, tab: str, **values: Any) -> None:
        """Render a page with what all pages have."""
        said = self.get_signed_cookie("millpond_said")
        if said:
            self.clear_cookie("millpond_said")
        self.render(
            template,
            tab=tab,
            say=formatting,
            may_change=self.may_change,
            why_not=self.why_not,
            said=said.decode() if said else "",
            own_file=self.own_file,
            **values,
        )

    def go(self, path: str, said: str) -> None:
        """Send the browser to a page of ours, which shows what was done, once."""
        self.set_secure_cookie("millpond_said", said, expires_days=None)
        self.redirect(path, status=303)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Show what went wrong as a page: that the broker is away, or what was wrong with the request."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, HTTPError) and status_code in (400, 403, 503):
            if not hasattr(self, "_current_user"):
                self.current_user = None
            self.set_status(status_code)
            self.render("trouble.html", tab="", status=status_code, trouble=error.get_message() or str(error))
            return
        super().write_error(status_code, **kwargs)


def _names_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    with suppress(ValueError):
        return ip_address(name).is_loopback
    return name == "localhost"

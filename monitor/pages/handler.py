"""The base of all page handlers: Flower's authorisation, calls of the broker in threads, rendering.

A user that may see Flower may see these pages. A change also needs that Flower has logins (its own API has
the same rule), that it is not in read-only mode, and an XSRF token that one of these pages has issued.
"""

import getpass
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, cast
from urllib.parse import unquote

from flower.views import BaseHandler
from tornado.web import HTTPError, RequestHandler, authenticated

from millpond.broker import audit
from millpond.broker.connection import Store
from millpond.broker.errors import MillpondError
from millpond.broker.stats.history import HistoryCache
from millpond.monitor import formatting
from millpond.tasks.errors import BrokerAway
from millpond.tasks.pools import PoolsTable

T = TypeVar("T")

#: The pages load nothing from another origin, and run only scripts that are files of Flower or Millpond.
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
)


class PageHandler(BaseHandler):
    """A handler of Millpond's pages."""

    def set_default_headers(self) -> None:
        """Forbid framing, caching and foreign scripts."""
        super().set_default_headers()
        self.clear_header("Access-Control-Allow-Origin")
        self.set_header("Content-Security-Policy", CONTENT_POLICY)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "same-origin")

    @authenticated
    def prepare(self) -> None:
        """Refuse users that are not logged in. The guard (`guard.py`) has refused foreign host names."""

    def check_xsrf_cookie(self) -> None:
        """Refuse a form without an XSRF token of these pages, however the user is authenticated."""
        super().check_xsrf_cookie()
        RequestHandler.check_xsrf_cookie(self)

    # Authorisation

    @property
    def has_logins(self) -> bool:
        """True if Flower has logins."""
        options = self.application.options
        return bool(options.basic_auth or options.auth)

    @property
    def may_change(self) -> bool:
        """True if this user may make changes."""
        allowed = self.has_logins or self.unauthenticated_api
        return bool(allowed) and not self.application.options.read_only

    def require_change_right(self) -> None:
        """Raise `HTTPError` 403 if this user may not make changes."""
        if not self.may_change:
            raise HTTPError(403, self.why_read_only)

    @property
    def why_read_only(self) -> str:
        """The reason why this user may not make changes."""
        if self.application.options.read_only:
            return "Read only mode is enabled"
        return "Read only, because Flower has no logins: set MILLPOND_FLOWER_BASIC_AUTH"

    @property
    def user_name(self) -> str:
        """The name for the audit: that of the login, or without logins the account of Flower's process."""
        user = self.current_user
        if isinstance(user, str):  # OAuth; with basic auth Flower sets True
            return user
        if self.has_logins:
            with suppress(ValueError, IndexError):
                credentials = b64decode(self.request.headers.get("Authorization", "").split()[1]).decode()
                return unquote(credentials.partition(":")[0])  # the guard has encoded it in ASCII
        return getpass.getuser()

    # The broker

    @property
    def store(self) -> Store:
        """The broker's store."""
        return cast(Store, self.application.store)

    @property
    def history(self) -> HistoryCache:
        """The history of queues and pools."""
        return cast(HistoryCache, self.application.history)

    @property
    def pools_table(self) -> PoolsTable:
        """The pools table of the settings."""
        return cast(PoolsTable, self.application.pools_table)

    async def call_broker(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Run a blocking call of the broker in a thread, and return its value.

        Raises `HTTPError` 503 if the broker is unreachable, and 400 for any other error of Millpond's.
        """
        call = partial(function, *args, **kwargs)
        try:
            return cast(T, await self.application.io_loop.run_in_executor(None, call))
        except BrokerAway as away:
            raise HTTPError(503, str(away)) from away
        except MillpondError as error:
            raise HTTPError(400, str(error)) from error

    async def record_change(self, change: str) -> None:
        """Record a change by this user in the audit."""
        author = f"{self.user_name} by Flower from {self.request.remote_ip}"
        await self.call_broker(audit.record_change, self.store, author, change)

    # Rendering

    def field(self, name: str) -> str | None:
        """Return a field of the query or the form, or None if it is empty or missing."""
        # Flower's own `get_argument` escapes the value for HTML.
        return RequestHandler.get_argument(self, name, None) or None

    def static_path(self, name: str) -> str:
        """Return the path of a static file, with a version that changes with its content."""
        version = self.application.settings["static_versions"][name]
        return f"{self.reverse_url('millpond-static', name)}?v={version}"

    def render_page(self, template: str, *, tab: str, **values: Any) -> None:
        """Render a template with these values and those that all pages need. `tab` is the active tab."""
        message = self.get_signed_cookie("millpond_message")
        if message:
            self.clear_cookie("millpond_message")
        self.render(
            template,
            tab=tab,
            formatting=formatting,
            may_change=self.may_change,
            why_read_only=self.why_read_only,
            message=message.decode() if message else "",
            static_path=self.static_path,
            **values,
        )

    def redirect_with_message(self, path: str, message: str) -> None:
        """Redirect to a page that shows the message once."""
        self.set_secure_cookie("millpond_message", message, expires_days=None)
        self.redirect(path, status=303)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Render Millpond's error page for 400, 403 and 503, and Flower's for other errors."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, HTTPError) and status_code in (400, 403, 503):
            if not hasattr(self, "_current_user"):
                self.current_user = None
            self.set_status(status_code)
            self.render("error.html", tab="", status=status_code, error=error.get_message() or str(error))
            return
        super().write_error(status_code, **kwargs)

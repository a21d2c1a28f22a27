"""The broker of a Celery application's own settings, which is used if Millpond's settings name none.

A command asks another process, because the import of an application may print, patch or take memory. A client
is part of the application's own program and imports it there.
"""

import subprocess
import sys
from dataclasses import dataclass

from millpond.broker.url import BrokerURL
from millpond.tasks.errors import BadBrokerUrl, SettingsError
from millpond.tasks.settings import Settings

#: The schemes of brokers that Celery can use and Millpond cannot.
_OTHER_BROKERS = ("amqp", "amqps", "pyamqp", "py-amqp", "librabbitmq", "sqs", "memory", "filesystem", "kafka")

#: The time that the import of an application may take.
LOADING_SECONDS = 60.0

_REMEDY = "set MILLPOND_BROKER_URL, as in redis://host:6379/0"


@dataclass(frozen=True)
class ApplicationBroker:
    """The broker URL and the key prefix in the settings of the application `app`; "" if it has none."""

    app: str
    url: str
    key_prefix: str = ""

    @property
    def is_usable(self) -> bool:
        """True if the application has a broker, and Millpond can use it."""
        try:
            BrokerURL.parse(self.url)
        except BadBrokerUrl:
            return False
        return True

    def apply_to(self, settings: Settings) -> Settings:
        """Return the settings with this broker, and with this prefix if they have none.

        Returns them unchanged if the application has no broker. Raises `SettingsError` for a broker that
        Millpond cannot use.
        """
        if not self.url:
            return settings
        try:
            BrokerURL.parse(self.url)
        except BadBrokerUrl as error:
            scheme = self.url.partition("://")[0]
            raise SettingsError(
                f"the broker of {self.app}'s own settings ({scheme}://) cannot be used: {_REMEDY}"
                if scheme in _OTHER_BROKERS
                else f"in {self.app}'s own settings: {error}"
            ) from None
        return settings.model_copy(
            update={"broker_url": self.url, "key_prefix": settings.key_prefix or self.key_prefix}
        )


def ask_application(app: str) -> ApplicationBroker:
    """Import an application in another process, and return its broker.

    Raises `SettingsError` with the last line of that process's errors if it cannot be imported.
    """
    command = [sys.executable, "-P", "-m", "millpond.tasks.celery_application", app]
    try:
        result = subprocess.run(command, capture_output=True, check=False, timeout=LOADING_SECONDS)
    except subprocess.TimeoutExpired:
        raise SettingsError(
            f"the application {app} is not imported after {LOADING_SECONDS:.0f} s: {_REMEDY}"
        ) from None
    output, errors = (text.decode(errors="replace") for text in (result.stdout, result.stderr))
    # What the application prints at its import comes before the last two lines.
    lines = output.splitlines()[-2:]
    if result.returncode or [line.partition(" ")[0] for line in lines] != ["broker", "prefix"]:
        reason = errors.strip().rpartition("\n")[2].removeprefix("millpond: ")
        raise SettingsError(reason or f"the application {app} ended its program at its import: {_REMEDY}")
    url, prefix = (line.partition(" ")[2] for line in lines)
    return ApplicationBroker(app, url, prefix)


def client_settings(settings: Settings) -> Settings:
    """Return the settings of a client: with the application's broker if they name the application alone.

    Imports the application then. Raises `SettingsError` if that is not possible.
    """
    app = settings.app
    if settings.broker_url is not None or app is None:
        return settings
    module = app.partition(":")[0]
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if getattr(spec, "_initializing", False):  # as importlib itself tells a module that is not complete
        raise SettingsError(
            f"no broker is configured, and Client() is made while {module} is imported, before its broker is "
            f"known: make the client when it is first used, or {_REMEDY}"
        )
    from millpond.tasks import celery_application

    return ApplicationBroker(app, *celery_application.read_broker(app)).apply_to(settings)

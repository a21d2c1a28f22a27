"""All settings, with their types and defaults. `tasks/configuration/` reads them.

The first source that has a value counts: the environment (`MILLPOND_BROKER_URL`; a field of a table has two
underscores: `MILLPOND_SMTP__HOST`), then the TOML file (`./millpond.toml`, or the one that `MILLPOND_CONFIG`
names), then the default. SETTINGS.md is generated from this file and lists every setting.
"""

import json
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

from pydantic import (
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)

from millpond.broker.url import BrokerURL
from millpond.tasks.configuration import faults, sources
from millpond.tasks.configuration.model_fields import LIFTED
from millpond.tasks.errors import BadBrokerUrl, SettingsError
from millpond.tasks.field_types import (
    Count,
    CountOrZero,
    Host,
    Logins,
    Name,
    Port,
    Seconds,
    SettingsTable,
    Url,
    ValidValues,
    Words,
)
from millpond.tasks.gateway_settings import Gateway as Gateway
from millpond.tasks.gateway_settings import GatewayToken as GatewayToken
from millpond.tasks.pools import DRAIN_SECONDS, PoolsTable, default_pools, default_queues
from millpond.tasks.schedule import ScheduleSettings

logger = logging.getLogger(__name__)


class Smtp(SettingsTable):
    """How mail is sent: the submission server, its encryption and its login."""

    host: Host = Field("localhost", description="The host of the mail submission server.")
    port: Port = Field(
        25, ge=1, description="The port of the server; 587 is usual with `starttls`, 465 with `tls`."
    )
    security: Literal["none", "starttls", "tls"] = Field(
        "none", description="How the connection is encrypted."
    )
    username: str | None = Field(None, description="The name of the login; `password` must be set, too.")
    password: SecretStr | None = Field(None, description="The password of the login.")
    ca_file: Path | None = Field(
        None,
        description="The certificate authorities that are trusted, in a PEM file; not set: the system's.",
    )
    timeout_seconds: Seconds = Field(30.0, description="How long the server may take for one answer.")
    keep_seconds: Seconds = Field(
        60.0, description="How long an idle connection is kept for another message."
    )
    message_id_domain: str = Field(
        "millpond.local", min_length=1, description="The right-hand side of the Message-ID."
    )
    intranet_domains: Words = Field(
        (),
        description="Domains of your own network, which addresses may have; their subdomains are included.",
    )
    templates: Path | None = Field(None, description="The folder of templates that mails may name.")
    ledger_days: Count = Field(7, description="Days for which the ledger remembers that a message was sent.")
    max_attachment_bytes: Count = Field(
        20 * 1024**2, description="The maximum of all attachments of one message together, before encoding."
    )
    allow_plaintext_login: bool = Field(
        False, description="Send the password over a connection that is not encrypted."
    )

    @model_validator(mode="after")
    def _check_login(self) -> "Smtp":
        """Raise `ValueError` for half a login, or for one without encryption unless that is allowed."""
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together: set both or neither")
        if self.username is not None and self.security == "none" and not self.allow_plaintext_login:
            raise ValueError(
                "a login needs security = starttls or tls; to send the password in the clear, set "
                "allow_plaintext_login = true"
            )
        return self


class Files(SettingsTable):
    """The folders that file tasks may read and write, and the largest inputs."""

    roots: Words = Field(
        (),
        description="Storage URLs or local folders. File tasks read and write nothing outside of them. "
        "Empty: file tasks are refused.",
    )
    max_input_bytes: Count = Field(10 * 1024**3, description="The largest input.")
    max_pixels: Count = Field(200_000_000, description="The largest image, in width times height.")
    max_image_bytes: Count = Field(
        1024**3,
        description="The most memory that one image may take: pixels, times their bytes, times the copies "
        "that its format and the target's hold. Slots times this must fit the worker's memory.",
    )
    max_unpacked_bytes: Count = Field(10 * 1024**3, description="The most that one archive may unpack to.")
    max_unpacked_ratio: Count = Field(
        200, description="How many times its own size an archive may unpack to."
    )
    max_entries: Count = Field(100_000, description="The most files in one archive.")


class BrokerOptions(TypedDict):
    """The options of a connection to the broker, beside its URL."""

    prefix: str
    timeout_seconds: float


class Settings(SettingsTable):
    """All settings in force. A value comes from the arguments, the environment, the file, or the default.

    Raises `SettingsError`, one line that names each value at fault and its source.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    broker_url: Url | None = Field(
        None,
        repr=False,
        description="`redis://`, `rediss://`, `unix://` or "
        "`sentinel://a:26379;sentinel://b:26379/master/db`; options may follow. Not set: commands use the "
        "`millpond up` of this machine, or start a private Valkey.",
    )
    key_prefix: str = Field(
        "", description="The prefix of every key in Redis, so that several deployments can share one server."
    )
    broker_timeout_seconds: Seconds = Field(
        5.0,
        description="How long a program waits for one reply of the broker, or for a connection to it, before "
        "`BrokerAway`.",
    )
    send_copies: CountOrZero = Field(
        0,
        description="How many replicas of the broker must have a message before a send returns; 1 or more "
        "where a replica may take over. 0: a send waits for none, and a fail-over may lose the last ones.",
    )
    drain_seconds: Seconds = Field(
        DRAIN_SECONDS,
        description="How long a running task may go on after SIGTERM. Other times of a shutdown are "
        "derived from it.",
    )
    prefetch: CountOrZero = Field(
        16,
        description="Messages that a worker process may have fetched beyond its slots; `millpond worker "
        "POOL` takes the pool's instead.",
    )
    flower_basic_auth: Logins = Field(
        (),
        description="The logins of Flower, as `user:password`. Without any, Flower listens on loopback only.",
    )
    flower_read_only: bool = Field(
        False, description="Flower has no buttons that change anything, and refuses their routes."
    )
    flower_url_prefix: str = Field(
        "", description="The sub-path at which a proxy shows Flower, as in `ops/flower`."
    )
    flower_max_tasks: Count = Field(
        20_000, description="The number of latest tasks that Flower's own pages show; each takes some 6 kB."
    )
    task_events_per_second: CountOrZero = Field(
        200,
        description="Tasks a second whose events a worker process sends to Flower and other listeners; a "
        "burst may have ten times as many. Of more tasks it sends a sample, and every failure. 0: the "
        "events of every task.",
    )
    sample_slots: bool = Field(
        True,
        description="Whether worker processes sample five times a second what their slots wait for, so "
        "that `millpond why` can show it.",
    )
    probe_share: float = Field(
        0.02,
        ge=0,
        le=0.5,
        description="The share of a pool's throughput in an hour that it may cost to measure whether more "
        "slots would help. It is measured while the pool is behind and nothing else explains it. 0: never.",
    )
    log_format: Literal["plain", "json"] = Field(
        "plain", description="How log lines are written: as text, or one JSON object a line."
    )
    traces_endpoint: (
        Annotated[
            str,
            Field(pattern=r"^https?://[^\s/]"),
            ValidValues("a URL, as in http://localhost:4318/v1/traces"),
        ]
        | None
    ) = Field(
        None,
        description="Where spans are sent, by OTLP, as in http://localhost:4318/v1/traces. Not set: "
        "nothing is traced.",
    )
    health_port: Port | None = Field(
        None,
        description="Where `millpond worker` answers health checks by HTTP. Not set: `millpond health` does.",
    )
    health_address: Host = Field("127.0.0.1", description="The address of `health_port`.")
    kinds: Words = Field((), description="Modules whose kinds the workers run, beside Millpond's own.")
    app: str | None = Field(
        None,
        description="The Celery application whose tasks the workers run, as `celery -A` names it. Not set: "
        "Millpond's own, with the kinds and the Celery tasks of `kinds`.",
    )
    middleware: Words = Field(
        (),
        description="Middleware as `module:Class`, the outermost first: code around sending and executing.",
    )
    table: PoolsTable = Field(default_factory=PoolsTable, description="The pools and the queues.")
    smtp: Smtp = Field(default_factory=Smtp, description="How mail leaves.")
    files: Files = Field(default_factory=Files, description="What file tasks may touch.")
    gateway: Gateway = Field(default_factory=Gateway, description="Who may use the HTTP gateway.")
    schedule: dict[Name, ScheduleSettings] = Field(
        default_factory=dict, description="Periodic tasks by name; `millpond scheduler` sends them."
    )

    @property
    def broker_options(self) -> BrokerOptions:
        """The options of every connection to the broker."""
        return {"prefix": self.key_prefix, "timeout_seconds": self.broker_timeout_seconds}

    @model_validator(mode="wrap")
    @classmethod
    def _merge_sources(cls, arguments: Any, handler: ModelWrapValidatorHandler["Settings"]) -> "Settings":
        """Validate the arguments merged over the values of the environment and the file."""
        if not isinstance(arguments, dict):
            return handler(arguments)
        read = read_setting_sources(cls)
        try:
            return handler(sources.merge_tables(read.values, arguments))
        except ValidationError as error:
            raise SettingsError(faults.describe_faults(error, cls, read)) from None


def read_setting_sources(model: type[Settings] = Settings) -> sources.Sources:
    """Read the environment variables and the file, for the fields of `model`. Raises `SettingsError`."""
    table = {"pools": dict.fromkeys(default_pools()), "queues": dict.fromkeys(default_queues())}
    return sources.read_sources(model, shipped_names={"table": table})


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, which are read at the first call.

    Logs a warning for a queue that no pool takes from and that seems misspelt. Raises `SettingsError` or
    `BadBrokerUrl`, with all faults in one line.
    """
    read = Settings()
    if read.broker_url is not None:
        try:
            BrokerURL.parse(read.broker_url).check_files()
        except BadBrokerUrl as error:
            source = read_setting_sources().source_of(("broker_url",))
            raise BadBrokerUrl(f"{source}: {error}") from None
    for queue, similar in read.table.misspelt_queues():
        logger.warning("no pool takes from the queue %s: did you mean %s?", queue, similar)
    return read


def is_debug() -> bool:
    """True if `MILLPOND_DEBUG` requests tracebacks in addition to the one line of an error."""
    return os.environ.get("MILLPOND_DEBUG", "").lower() not in ("", "0", "false", "no", "off")


def child_environment(settings: Settings) -> dict[str, str]:
    """Return the environment for a child process that is to have these settings. It has their secrets."""
    variables = tuple(f"MILLPOND_{name.upper()}" for name in (*Settings.model_fields, *LIFTED))
    nested = tuple(f"{variable}__" for variable in variables)
    env = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in variables and not name.upper().startswith(nested)
    }
    for name, value in settings.model_dump().items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, default=_to_plain_text)
            env[f"MILLPOND_{name.upper()}"] = text
    return env


def _to_plain_text(value: object) -> str:
    """Return a value that JSON cannot write as text. A secret is revealed."""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

"""Read the environment and millpond.toml: the only place that does, with folders.py.

Order, the first that has a value wins: the environment (`MILLPOND_BROKER_URL`, nested with two underscores:
`MILLPOND_SMTP__HOST`), then the TOML file (`./millpond.toml`, or the one that `MILLPOND_CONFIG` names), then
the defaults.
"""

import json
import logging
import os
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from millpond.tasks.errors import SettingsError
from millpond.tasks.field_types import Seconds
from millpond.tasks.pools import DRAIN_SECONDS, Table
from millpond.tasks.process.paths import scratch, state_dir
from millpond.tasks.schedule import Periodic

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

logger = logging.getLogger(__name__)


def _words(value: Any) -> Any:
    """Read a list as a person writes it in the environment, `a,b`, or as JSON."""
    if not isinstance(value, str):
        return value
    return (
        json.loads(value)
        if value.startswith("[")
        else [word.strip() for word in value.split(",") if word.strip()]
    )


#: A list of words: in the environment separated by commas.
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]


class Smtp(BaseModel):
    """Say how mail leaves: the submission server, its encryption and its login."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = "localhost"
    port: PositiveInt = 25
    security: Literal["none", "starttls", "tls"] = "none"
    username: str | None = None
    password: SecretStr | None = None
    ca_file: Path | None = None
    timeout_seconds: Seconds = 30.0
    #: How long an idle connection is kept for the next message of its slot.
    keep_seconds: Seconds = 60.0
    #: The right-hand side of the Message-ID.
    message_id_domain: str = "millpond.local"
    templates: Path | None = None
    #: How long the ledger remembers that a message was sent.
    ledger_days: PositiveInt = 7
    #: All attachments of one message together, before encoding.
    max_attachment_bytes: PositiveInt = 20 * 1024**2
    #: Send the password over a connection that is not encrypted.
    allow_plaintext_login: bool = False

    @model_validator(mode="after")
    def _login_is_whole_and_encrypted(self) -> "Smtp":
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together: set both or neither")
        if self.username is not None and self.security == "none" and not self.allow_plaintext_login:
            raise ValueError(
                "a login needs security = starttls or tls; to send the password in the clear, set "
                "allow_plaintext_login = true"
            )
        return self


class Files(BaseModel):
    """Say where file tasks may read and write, and how large what they handle may be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Storage URLs or local folders; a task touches nothing outside them. Empty: file tasks are refused.
    roots: Words = ()
    max_input_bytes: PositiveInt = 10 * 1024**3
    max_pixels: PositiveInt = 200_000_000
    max_unpacked_bytes: PositiveInt = 10 * 1024**3
    max_unpacked_ratio: PositiveInt = 200
    max_entries: PositiveInt = 100_000


class GatewayToken(BaseModel):
    """Let whoever holds a token in, for some kinds; `millpond gateway token` makes both halves.

    `hash` is `sha256:` and the hex digest of the token; `kinds` are names of kinds or patterns, `email.*`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$")]
    hash: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", repr=False)]
    kinds: Words = ("*",)


class Gateway(BaseModel):
    """Say who may use the HTTP gateway, and how much at once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: Without any, the gateway stays on loopback and lets everybody there in.
    tokens: tuple[GatewayToken, ...] = ()
    #: Modules that declare further contracts, and no bodies.
    contracts: Words = ()
    #: One task: the body of a request, or a line of a stream.
    max_task_bytes: PositiveInt = 4 * 1024**2
    max_stream_bytes: PositiveInt = 1024**3
    max_batch_tasks: PositiveInt = 10_000_000
    #: Streams of tasks, and streams of results, at once each.
    max_streams: PositiveInt = 32
    max_connections: PositiveInt = 1_000
    #: How long a stream waits for room in a full queue before it refuses what it holds.
    wait_seconds: Seconds = 30.0
    #: How long a client may send nothing of a body it began, or take nothing of an answer.
    idle_seconds: Seconds = 60.0

    @model_validator(mode="after")
    def _one_name_each(self) -> "Gateway":
        if len({token.name for token in self.tokens}) < len(self.tokens):
            raise ValueError("two tokens have the same name: give each its own")
        return self


class Settings(BaseSettings):
    """Hold every setting. Durations are seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(
        env_prefix="MILLPOND_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    #: redis://, rediss:// or sentinel://a:26379;sentinel://b:26379/master/db; None starts the embedded Valkey
    #: where a command allows it.
    broker_url: str | None = None
    #: Put before every key, so that several deployments share one server.
    key_prefix: str = ""
    #: How long a producer waits for the broker before it gives up with `BrokerAway`.
    broker_timeout_seconds: Seconds = 5.0
    drain_seconds: Seconds = DRAIN_SECONDS
    #: Messages that a worker process holds beyond its slots; `millpond worker POOL` sets it to the pool's.
    prefetch: NonNegativeInt = 16
    #: Who may see Flower, as user:password each; without any, Flower stays on loopback.
    flower_basic_auth: tuple[SecretStr, ...] = ()
    #: Let Flower show and change nothing: no buttons, and their routes are refused.
    flower_read_only: bool = False
    #: Tasks that Flower's own pages keep, the latest: some 6 kB each. Millpond's pages read Redis.
    flower_max_tasks: PositiveInt = 20_000
    #: Tasks a second whose events a worker process sends to Flower and other listeners, ten seconds' worth at
    #: once; of more it sends a sample of whole tasks, and all that goes wrong. 0: the events of every task.
    task_events_per_second: NonNegativeInt = 200
    #: How log lines are written: `plain`, or `json`, an object a line.
    log_format: Literal["plain", "json"] = "plain"
    #: Where spans are sent, by OTLP, as in http://localhost:4318/v1/traces; None: nothing is traced.
    traces_endpoint: str | None = None
    #: Where the health of `millpond worker` can be asked by HTTP; None: by `millpond health` alone.
    health_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    health_address: str = "127.0.0.1"
    #: Modules whose kinds the workers run, beside Millpond's own: each holds the bodies of one or more kinds.
    kinds: Words = ()
    table: Table = Field(default_factory=Table)
    smtp: Smtp = Field(default_factory=Smtp)
    files: Files = Field(default_factory=Files)
    gateway: Gateway = Field(default_factory=Gateway)
    #: Periodic tasks by name; `millpond scheduler` sends them.
    schedule: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,60}$")], Periodic] = Field(
        default_factory=dict
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment before the file."""
        del dotenv_settings, file_secret_settings
        return init_settings, env_settings, _TomlFile(settings_cls, config_file())


class _TomlFile(TomlConfigSettingsSource):
    """Lift `[pools.*]` and `[queues.*]` of the file into the one table."""

    def __call__(self) -> dict[str, Any]:
        data = dict(super().__call__())
        table = {name: data.pop(name) for name in ("pools", "queues") if name in data}
        return {**data, "table": table} if table else data


def config_file() -> Path:
    """Return the TOML file in force, which need not exist unless `MILLPOND_CONFIG` names it."""
    named = os.environ.get("MILLPOND_CONFIG")
    if named and not Path(named).is_file():
        raise SettingsError(
            f"MILLPOND_CONFIG names {named}, which is not a file: create it or unset the variable"
        )
    return Path(named or "millpond.toml")


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Read the settings once a process; raise `SettingsError`, one line a fault.

    Source: the environment and the TOML file, as the module says.
    """
    try:
        found = Settings()
    except ValidationError as error:
        faults = "; ".join(f"{_place(fault['loc'])}: {_in_words(fault)}" for fault in error.errors())
        raise SettingsError(f"settings that cannot be used: {faults}") from None
    except ValueError as error:  # a TOML file that does not parse
        raise SettingsError(f"{config_file()}: {error}") from None
    for name, meant in _misspelt():
        logger.warning("%s is set, and no setting is called so: did you mean %s?", name, meant)
    return found


def _misspelt() -> list[tuple[str, str]]:
    """Return the variables that are all but named as a setting is: nothing reads them."""
    known = [f"MILLPOND_{name.upper()}" for name in (*Settings.model_fields, "config", "debug", "scratch")]
    ours = {name for name in os.environ if name.startswith("MILLPOND_") and "__" not in name}
    close = ((name, get_close_matches(name, known, 1, 0.9)) for name in sorted(ours.difference(known)))
    return [(name, found[0]) for name, found in close if found]


def debug() -> bool:
    """Say whether `MILLPOND_DEBUG` asks for tracebacks beside the one line that an error gets."""
    return os.environ.get("MILLPOND_DEBUG", "0") not in ("", "0")


def environment(configured: Settings) -> dict[str, str]:
    """Return the environment in which a child process reads these very settings."""
    own = tuple(f"MILLPOND_{name.upper()}" for name in Settings.model_fields)
    env = {
        name: value
        for name, value in os.environ.items()
        if name.upper() not in own and not name.upper().startswith(tuple(f"{field}__" for field in own))
    }
    for name, value in configured.model_dump().items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, default=_unveiled)
            env[f"MILLPOND_{name.upper()}"] = text
    return env


def _unveiled(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _place(location: tuple[int | str, ...]) -> str:
    """Say where what is wrong was written: in the file, unless the environment has it."""
    variable = "MILLPOND_" + "__".join(str(part).upper() for part in location)
    of_environment = any(f"{variable}__".startswith(f"{name.upper()}__") for name in os.environ)
    if of_environment or not config_file().is_file():
        return variable
    path = location[1:] if location[0] == "table" else location
    return f"{'.'.join(map(str, path))} in {config_file()}"


def _in_words(fault: "ErrorDetails") -> str:
    return "there is no such setting" if fault["type"] == "extra_forbidden" else fault["msg"]


__all__ = [
    "Files",
    "Gateway",
    "GatewayToken",
    "Settings",
    "Smtp",
    "Words",
    "config_file",
    "debug",
    "environment",
    "scratch",
    "settings",
    "state_dir",
]

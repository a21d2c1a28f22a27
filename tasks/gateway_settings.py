"""The settings of the HTTP gateway: its tokens and its limits."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from millpond.tasks.field_types import Count, Name, Seconds, SettingsTable, ValidValues, Words, parse_entries

#: What a token may permit beside sending.
Right = Literal["shed", "priority"]


class GatewayToken(SettingsTable):
    """A token of the gateway and the kinds that it may send; `millpond gateway token NAME` makes one."""

    name: Name = Field(description="The name of the token's owner, in logs.")
    hash: Annotated[
        str, ValidValues("sha256: and 64 hex digits, as `millpond gateway token NAME` prints them")
    ] = Field(pattern=r"^sha256:[0-9a-f]{64}$", repr=False, description="The digest of the token.")
    kinds: Words = Field(
        ("*",), description="The kinds that the token may send, or patterns such as `email.*`."
    )
    queues: Words = Field(
        (),
        description="Queues, or patterns, that a request may name, in addition to the own queues of the "
        "kinds; `*`: all.",
    )
    rights: Annotated[
        tuple[Right, ...], BeforeValidator(parse_entries), ValidValues('a list of "shed" and "priority"')
    ] = Field(
        (),
        description="`shed`: a request may discard the oldest tasks of a full queue. `priority`: a request "
        "may choose a priority.",
    )

    @model_validator(mode="before")
    @classmethod
    def _parse_text(cls, value: Any) -> Any:
        """Return the fields of a token that is written as `name:sha256:…`, the form of a variable."""
        if not isinstance(value, str):
            return value
        name, _, digest = value.partition(":")
        return {"name": name, "hash": digest}


class Gateway(SettingsTable):
    """The settings of the HTTP gateway: its tokens and its limits."""

    tokens: Annotated[
        tuple[GatewayToken, ...],
        BeforeValidator(parse_entries),
        ValidValues("name:sha256:…, or [[gateway.tokens]] tables"),
    ] = Field(
        (),
        description="The tokens that may send. Without any, the gateway listens on loopback only, and "
        "needs no token.",
    )
    contracts: Words = Field((), description="Modules that declare further contracts, and no handlers.")
    max_task_bytes: Count = Field(
        4 * 1024**2, description="The largest task: the body of a request, or a line of a stream."
    )
    max_stream_bytes: Count = Field(1024**3, description="The largest stream of tasks.")
    max_batch_tasks: Count = Field(10_000_000, description="The most tasks in one batch.")
    max_batches: Count = Field(
        20_000,
        description="The most batches that are kept for one token: open ones, and those that ended in the "
        "last seven days.",
    )
    max_streams: Count = Field(
        32, description="The most streams of tasks at once, and the most streams of results at once."
    )
    max_connections: Count = Field(1_000, description="The most connections at once.")
    wait_seconds: Seconds = Field(
        30.0, description="How long a stream waits for room in a full queue before the rest is refused."
    )
    idle_seconds: Seconds = Field(
        60.0,
        description="How long a client may send nothing of an incomplete body, or read nothing of a "
        "response.",
    )

    @model_validator(mode="after")
    def _check_unique_names(self) -> "Gateway":
        if len({token.name for token in self.tokens}) < len(self.tokens):
            raise ValueError("two tokens have the same name: give each its own")
        return self

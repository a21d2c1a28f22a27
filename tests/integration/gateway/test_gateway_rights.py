"""Rights: every route and every option of the gateway, with every right missing.

The routes are those of the application itself and the options those of its models: a new one without a row
here fails.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from millpond.producer.client import Client
from millpond.producer.gateway.app import application, load_contracts
from millpond.producer.gateway.options import RequestOptions, StreamTask
from millpond.producer.gateway.routes.stream import StreamOptions
from millpond.producer.gateway.state import State
from millpond.producer.gateway.tokens import hash_token
from millpond.tasks.contract import contracts_by_kind
from millpond.tasks.settings import Gateway, GatewayToken, Settings
from tests.harness.gateway_process import GatewayProcess, ndjson_body, run_gateway

MAIL = {"sender": "a@example.org", "to": "b@example.org", "subject": "s", "text": "t"}

#: Each right of a token, as settings have it; `kind` opens another kind.
RIGHTS: dict[str, dict[str, tuple[str, ...]]] = {
    "kind": {"kinds": ("email.*", "squares.*")},
    "queue": {"queues": ("def*",)},
    "shed": {"rights": ("shed",)},
    "priority": {"rights": ("priority",)},
}


def _with(rights: set[str]) -> dict[str, tuple[str, ...]]:
    held: dict[str, tuple[str, ...]] = {"kinds": ("email.*",)}
    for right in sorted(rights):
        for name, words in RIGHTS[right].items():
            held[name] = words if name == "kinds" else held.get(name, ()) + words
    return held


#: Tokens by name: two of the same kinds, one for every kind, and for each right one that has it alone and
#: one without.
HOLDERS: dict[str, dict[str, tuple[str, ...]]] = {
    "shop": _with(set()),
    "rival": _with(set()),
    "sho": _with(set()),
    "all": {},
    **{f"only-{right}": _with({right}) for right in RIGHTS},
    **{f"no-{right}": _with(set(RIGHTS) - {right}) for right in RIGHTS},
}

#: The right that a route needs, and the code of the refusal. `None`: any token; "": not even a token.
ROUTES: dict[str, str | None] = {
    "POST /send/{kind}": "forbidden_kind",
    "POST /send": "forbidden_kind",  # by the line
    "GET /tasks/{id}": "forbidden_task",
    "POST /tasks/{id}/cancel": "forbidden_task",
    "POST /batches": None,
    "GET /batches/{id}": "forbidden_batch",
    "POST /batches/{id}/tasks": "forbidden_batch",
    "POST /batches/{id}/close": "forbidden_batch",
    "POST /batches/{id}/cancel": "forbidden_batch",
    "GET /batches/{id}/results": "forbidden_batch",
    "GET /kinds": None,
    "GET /openapi.json": None,
    "GET /metrics": None,
    "GET /health/live": "",
    "GET /health/ready": "",
}

#: A value of each option that touches others, the code of its refusal, and the right that opens it (`None`:
#: no right does, because it is another owner's). `None` in place of all: it concerns the task itself.
OPTIONS: dict[str, tuple[str, str, str | None] | None] = {
    "queue": ("default", "forbidden_queue", "queue"),
    "overflow": ("shed", "forbidden_overflow", "shed"),
    "priority": ("9", "forbidden_priority", "priority"),
    "id": ("rival:1", "forbidden_id", None),
    "batch": ("", "forbidden_batch", None),
    "kind": ("squares.square", "forbidden_kind", "kind"),
    **dict.fromkeys(("delay_seconds", "at", "expires_seconds", "deadline_seconds", "once", "for_seconds")),
    **dict.fromkeys(("track", "wait_seconds", "task")),
}


@pytest.fixture(scope="module")
def gateway(module_url: str) -> Iterator[GatewayProcess]:
    """Run a gateway with a token for each combination of rights."""
    tokens = [GatewayToken(name=name, hash=hash_token(name), **held) for name, held in HOLDERS.items()]  # type: ignore[arg-type]
    with run_gateway(Settings(broker_url=module_url, gateway=Gateway(tokens=tuple(tokens)))) as started:
        yield started


def mail(**options: Any) -> str:
    return ndjson_body({"kind": "email.send", "task": MAIL, **options})


def test_every_route_of_the_application_has_a_row(module_url: str) -> None:
    """A route or an option that is added without its right fails here."""
    settings = Settings(broker_url=module_url)
    load_contracts(())
    state = State(settings, Client(settings=settings))
    try:
        found = {
            f"{method} {'/send/{kind}' if path.removeprefix('/send/') in contracts_by_kind() else path}"
            for path, method in _routes(application(state).routes)
        }
    finally:
        state.close()
    assert found == set(ROUTES)
    assert {
        name for model in (RequestOptions, StreamOptions, StreamTask) for name in model.model_fields
    } == set(OPTIONS)


def _routes(some: Iterable[Any]) -> Iterator[tuple[str, str]]:
    for route in some:
        if hasattr(route, "methods"):
            yield from ((route.path, method) for method in route.methods - {"HEAD"})
        else:  # a router within the application
            yield from _routes(route.original_router.routes)


@pytest.fixture(scope="module")
def owned(gateway: GatewayProcess) -> dict[str, str]:
    """Send a tracked mail and open a batch as `shop`; return their paths."""
    task = gateway.ask_as("shop", "POST", "/send/email.send?track=true", MAIL)
    batch = gateway.ask_as("shop", "POST", "/batches")
    assert task.json["id"].startswith("shop:")
    return {"/tasks/{id}": task.headers["Location"], "/batches/{id}": batch.headers["Location"]}


def _request(route: str, owned: dict[str, str], kind: str = "email.send") -> tuple[str, str, Any]:
    method, path = route.split()
    for template, real in owned.items():
        path = path.replace(template, real)
    body = mail() if path.endswith("/tasks") else {} if method == "POST" else None
    if route == "POST /send":
        body = ndjson_body({"kind": kind, "task": MAIL})
    if route == "POST /send/{kind}":
        path, body = f"/send/{kind}", MAIL
    return method, path, body


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_is_closed_to_the_token_of_another(
    gateway: GatewayProcess, owned: dict[str, str], route: str
) -> None:
    """Without a token only health answers; no other token touches a token's tasks and batches.

    The other tokens: one with the same kinds, one with a name that begins alike, one with every other right.
    """
    code = ROUTES[route]
    without = gateway.ask_as(None, *_request(route, owned))
    assert (without.status == 401) == (code != ""), (route, without.status)
    kind = "squares.square" if code == "forbidden_kind" else "email.send"
    for stranger in ("rival", "sho", "no-kind"):
        answer = gateway.ask_as(stranger, *_request(route, owned, kind))
        if not code:
            assert answer.status in (200, 201), (route, stranger, answer.status)
            continue
        refused = answer.lines[0] if route == "POST /send" else answer.json
        assert refused["error"]["code"] == code, (route, stranger, refused)
    task, batch = (gateway.ask_as("shop", "GET", path) for path in owned.values())
    assert (task.json["state"], batch.json["closed_at_ms"], batch.json["sent"]) == ("ready", None, 0)


@pytest.mark.parametrize(
    "route", [route for route, code in ROUTES.items() if code and code != "forbidden_kind"]
)
def test_a_route_is_open_to_its_owner(gateway: GatewayProcess, route: str) -> None:
    """A call refused to others works for the owner, and for a token for every kind."""
    for holder in ("shop", "all"):
        task = gateway.ask_as("shop", "POST", "/send/email.send?track=true", MAIL).headers["Location"]
        batch = gateway.ask_as("shop", "POST", "/batches").headers["Location"]
        if route.endswith("/results"):
            gateway.ask_as("shop", "POST", f"{batch}/close")
        answer = gateway.ask_as(holder, *_request(route, {"/tasks/{id}": task, "/batches/{id}": batch}))
        assert answer.status == 200, (route, holder, answer.text)


@pytest.mark.parametrize("option", [name for name, row in OPTIONS.items() if row])
def test_an_option_that_touches_others_needs_its_right(
    gateway: GatewayProcess, owned: dict[str, str], option: str
) -> None:
    """A token with every right but this one is refused, alone and by the line; with this one it is not."""
    value, code, right = OPTIONS[option] or ("", "", None)
    if option == "batch":
        value = owned["/batches/{id}"].rpartition("/")[2]
    owner = {"batch": "shop", "id": "rival"}.get(option)
    for holder in ["sho", f"no-{right}"] if right else set(HOLDERS) - {owner, "all"}:
        assert set(_tried(gateway, holder, option, value)) == {code}, holder
    for holder in [f"only-{right}"] if right else [owner or "", "all"]:
        assert set(_tried(gateway, holder, option, value)) == {None}, holder


def _tried(gateway: GatewayProcess, holder: str, option: str, value: str) -> list[str | None]:
    """Return the codes of the refusals of one task and of a line with an option; None: it was taken."""
    kind, task = (value, {"n": 1}) if option == "kind" else ("email.send", MAIL)
    query = "" if option == "kind" else f"?{option}={value}"
    one = gateway.ask_as(holder, "POST", f"/send/{kind}{query}", task)
    codes = [None if one.status == 202 else one.json["error"]["code"]]
    if option == "batch":  # a stream names it in its path
        return codes
    path = f"/send{query}" if option == "overflow" else "/send"
    extra = {} if option in ("overflow", "kind") else {option: int(value) if option == "priority" else value}
    line = gateway.ask_as(holder, "POST", path, ndjson_body({"kind": kind, "task": task, **extra})).lines[0]
    return [*codes, line["error"]["code"] if "error" in line else None]


@pytest.mark.parametrize("policy", ["exempt", "caller_runs"])
def test_no_sender_is_exempt_or_has_the_gateway_run_its_task(gateway: GatewayProcess, policy: str) -> None:
    """The policies of the pool itself and of callers in Python are no options of any token."""
    for holder in HOLDERS:
        one = gateway.ask_as(holder, "POST", f"/send/email.send?overflow={policy}", MAIL)
        many = gateway.ask_as(holder, "POST", f"/send?overflow={policy}", mail())
        assert (one.status, many.status) == (422, 422)


def test_a_unique_key_is_of_its_owner(gateway: GatewayProcess) -> None:
    """A key that one token used hides no task of another, and no answer names an id of another."""
    holders = ("shop", "rival", "sho", "all", "shop")
    path = "/send/email.send?once=one&for_seconds=60"
    answers = [gateway.ask_as(each, "POST", path, MAIL).json for each in holders]
    assert [answer["duplicate"] for answer in answers] == [False, False, False, False, True]
    assert answers[4]["id"] == answers[0]["id"]


def test_an_id_cancelled_before_it_is_sent_stops_no_task_of_another(gateway: GatewayProcess) -> None:
    """A token cancels ids of its own name space alone, also ids that have not been sent yet."""
    assert gateway.ask_as("rival", "POST", "/tasks/shop:early/cancel").status == 403
    sent = gateway.ask_as("shop", "POST", "/send/email.send?id=shop:early", MAIL)
    assert (sent.status, sent.json["id"]) == (202, "shop:early")
    assert gateway.ask_as("shop", "GET", "/tasks/shop:early").json["state"] == "ready"
    assert gateway.ask_as("shop", "GET", "/tasks/shop:never").status == 404


def test_every_task_that_a_token_sends_is_its_own(gateway: GatewayProcess) -> None:
    """The id of a task sent alone, by the line or into a batch begins with the token's name."""
    ask = gateway.ask_as
    batch = ask("shop", "POST", "/batches").headers["Location"]
    ids = [ask("shop", "POST", "/send/email.send", MAIL).json["id"]]
    ids += [ask("shop", "POST", path, mail()).lines[0]["id"] for path in ("/send", f"{batch}/tasks")]
    for id in ids:
        assert id.startswith("shop:")
        seen = {holder: ask(holder, "GET", f"/tasks/{id}").status for holder in ("shop", "rival", "all")}
        assert seen == {"shop": 200, "rival": 403, "all": 200}

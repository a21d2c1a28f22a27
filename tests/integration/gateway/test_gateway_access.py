"""Access to the gateway: by a token, for the token's kinds; without tokens, from this machine alone."""

import json
from collections.abc import Iterator

import pytest
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers

import millpond
from millpond.producer.client import Client
from millpond.producer.gateway.auth import authenticate, check_address
from millpond.producer.gateway.options import Id
from millpond.producer.gateway.problems import ApiError
from millpond.producer.gateway.tokens import ANONYMOUS, Principal, find_principal, hash_token
from millpond.producer.message import Message
from millpond.tasks.errors import SettingsError
from millpond.tasks.settings import Gateway, GatewayToken, Settings
from millpond.tasks.squares.contract import Square
from tests.harness.gateway_process import GatewayProcess, ndjson_body, run_gateway

MAIL = {"sender": "a@example.org", "to": "b@example.org", "subject": "s", "text": "t"}
SHOP, ALL = "millpond_shop", "millpond_all"
TOKENS = (
    GatewayToken(name="shop", hash=hash_token(SHOP), kinds=("email.*",)),
    GatewayToken(name="all", hash=hash_token(ALL)),
)


@pytest.fixture(scope="module")
def gateway(module_url: str) -> Iterator[GatewayProcess]:
    """Run a gateway that two tokens open."""
    with run_gateway(Settings(broker_url=module_url, gateway=Gateway(tokens=TOKENS))) as started:
        yield started


@pytest.mark.parametrize("token", [None, "", "millpond_shopp", hash_token(SHOP)])
def test_nothing_is_open_without_a_token(gateway: GatewayProcess, token: str | None) -> None:
    """No route but those of health answers without a known token, and a hash opens nothing."""
    routes = [("GET", "/kinds"), ("GET", "/openapi.json"), ("POST", "/batches"), ("GET", "/nowhere")]
    answers = [gateway.ask_as(token, method, path) for method, path in routes]
    answers.append(gateway.ask_as(token, "POST", "/send/email.send", MAIL))
    assert {answer.status for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert gateway.ask_as(token, "GET", "/health/live").status == 200
    assert gateway.ask_as(token, "GET", "/health/ready").status == 200


def test_a_token_opens_its_kinds(gateway: GatewayProcess) -> None:
    """A token for mail sends mail and nothing else, one by one or many, and sees no other kind."""
    assert gateway.ask_as(SHOP, "POST", "/send/email.send", MAIL).status == 202
    refused = gateway.ask_as(SHOP, "POST", "/send/squares.square", {"n": 1})
    assert (refused.status, refused.json["error"]["code"]) == (403, "forbidden_kind")
    assert {kind["kind"] for kind in gateway.ask_as(SHOP, "GET", "/kinds").json} == {
        "email.send",
        "email.campaign",
    }
    body = ndjson_body({"kind": "squares.square", "task": {"n": 1}}, {"kind": "email.send", "task": MAIL})
    many = gateway.ask_as(SHOP, "POST", "/send", body)
    assert many.lines[-1]["summary"] == {"accepted": 1, "duplicates": 0, "refused": 1, "aborted": None}


def test_a_batch_is_closed_to_the_tokens_of_others(gateway: GatewayProcess, module_url: str) -> None:
    """A narrow token opens, feeds, reads and cancels its own batches, and no other; one for all may all."""
    with Client(module_url) as client:
        given, nobodys = client.batch(owner="shop").id, client.batch().id
    own, others = (gateway.ask_as(token, "POST", "/batches").json["id"] for token in (SHOP, ALL))
    for token, expected in ((SHOP, {own: 200, given: 200, others: 403, nobodys: 403}), (ALL, {own: 200})):
        for batch, status in expected.items():
            feed = ndjson_body({"kind": "email.send", "task": MAIL})
            fed = gateway.ask_as(token, "POST", f"/batches/{batch}/tasks", feed)
            sent = gateway.ask_as(token, "POST", f"/send/email.send?batch={batch}", MAIL)
            assert (fed.status, sent.status) == (status, 403 if status == 403 else 202)
            assert gateway.ask_as(token, "GET", f"/batches/{batch}").status == status
    for batch, status in ((others, 403), (own, 200)):
        for verb in ("close", "cancel"):
            assert gateway.ask_as(SHOP, "POST", f"/batches/{batch}/{verb}").status == status
        assert gateway.ask_as(SHOP, "GET", f"/batches/{batch}/results").status == status
    assert gateway.ask_as(ALL, "GET", f"/batches/{others}").json["sent"] == 0
    assert gateway.ask_as(SHOP, "GET", "/batches/00000000-0000-4000-8000-000000000000").status == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.7", "example.org"])
def test_other_machines_need_a_token(host: str) -> None:
    """An address that others can reach is refused without tokens, and the error says how to go on."""
    with pytest.raises(SettingsError, match="millpond gateway token"):
        check_address(host, ())
    check_address(host, TOKENS)
    check_address("127.0.0.1", ())


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("localhost:8080", True),
        ("127.0.0.1", True),
        ("[::1]:8080", True),
        ("evil.example.org:8080", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_a_name_that_leads_here_is_not_this_machine(host: str, is_here: bool) -> None:
    """Without tokens a page of the web cannot reach the gateway under a name of its own (DNS rebinding)."""
    if is_here:
        assert authenticate((), Headers({"host": host})) == ANONYMOUS
    else:
        with pytest.raises(ApiError, match="403"):
            authenticate((), Headers({"host": host}))


@pytest.mark.parametrize("name", ["shop", ".shop", "...", "-", "x" * 60])
def test_the_tasks_of_a_token_of_any_name_have_ids_that_routes_take(name: str) -> None:
    """A token's tasks can be read and cancelled, whatever character the name of the token begins with."""
    principal = Principal(GatewayToken(name=name, hash=hash_token(name)).name, ("email.*",))
    assert (id := principal.new_task_id()) == TypeAdapter(Id).validate_python(id)


def test_a_token_may_use_the_longest_unique_keys() -> None:
    """A key stays within the client's maximum when it is moved into the name space of a token."""
    principal = Principal("x" * 60, ("email.*",))
    keys = [principal.namespaced_key(letter * 200) for letter in "ab"]
    assert len({Message(Square(n=1), once=key).once for key in keys}) == 2


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "x" * 201])
def test_an_id_is_a_part_of_a_path(id: str) -> None:
    """A client would remove `.` and `..` from a path."""
    with pytest.raises(ValidationError):
        TypeAdapter(Id).validate_python(id)


def test_the_command_makes_a_token_and_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    """A token of `millpond gateway token` opens the kinds it is for, and the hash is not the token."""
    assert millpond.main(["gateway", "token", "shop", "--kind", "email.*", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    secret = made.pop("token")
    found = find_principal([GatewayToken(**made)], secret)
    assert found is not None
    assert found.name == "shop"
    assert found.may_send("email.send")
    assert not found.may_send("squares.square")
    assert secret not in made["hash"]
    assert millpond.main(["gateway", "token", "a name"]) == 2

"""Access to the gateway: by a token, for the token's kinds; without tokens, from this machine alone."""

import json
from collections.abc import Iterator

import pytest
from starlette.datastructures import Headers

import millpond
from millpond.producer.client import Client
from millpond.producer.gateway.auth import authenticate, check_address
from millpond.producer.gateway.problems import ApiError
from millpond.producer.gateway.tokens import ANONYMOUS, find_principal, hash_token
from millpond.tasks.errors import SettingsError
from millpond.tasks.settings import Gateway, GatewayToken, Settings
from tests.harness.gateway_process import Answer, Running, running, stream

MAIL = {"sender": "a@example.org", "to": "b@example.org", "subject": "s", "text": "t"}
SHOP, ALL, WIDE, NONE = "millpond_shop", "millpond_all", "millpond_wide", "millpond_none"
TOKENS = (
    GatewayToken(name="shop", hash=hash_token(SHOP), kinds=("email.*",)),
    GatewayToken(name="all", hash=hash_token(ALL)),
    GatewayToken(name="none", hash=hash_token(NONE), kinds=("nothing.*",)),
    GatewayToken(name="wide", hash=hash_token(WIDE), kinds=("email.*",), queues=("def*",), rights=("shed",)),
)


@pytest.fixture(scope="module")
def gateway(module_url: str) -> Iterator[Running]:
    """Run a gateway that two tokens open."""
    with running(Settings(broker_url=module_url, gateway=Gateway(tokens=TOKENS))) as started:
        yield started


def ask(gateway: Running, token: str | None, method: str, path: str, body: object = None) -> Answer:
    authorization = None if token is None else f"Bearer {token}"
    return gateway.ask(method, path, body, authorization=authorization)


@pytest.mark.parametrize("token", [None, "", "millpond_shopp", hash_token(SHOP)])
def test_nothing_is_open_without_a_token(gateway: Running, token: str | None) -> None:
    """No route but those of health answers without a known token, and a hash opens nothing."""
    routes = [("GET", "/kinds"), ("GET", "/openapi.json"), ("POST", "/batches"), ("GET", "/nowhere")]
    answers = [ask(gateway, token, method, path) for method, path in routes]
    answers.append(ask(gateway, token, "POST", "/send/email.send", MAIL))
    assert {answer.status for answer in answers} == {401}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert ask(gateway, token, "GET", "/health/live").status == 200
    assert ask(gateway, token, "GET", "/health/ready").status == 200


def test_a_token_opens_its_kinds(gateway: Running) -> None:
    """A token for mail sends mail and nothing else, one by one or many, and sees no other kind."""
    assert ask(gateway, SHOP, "POST", "/send/email.send", MAIL).status == 202
    refused = ask(gateway, SHOP, "POST", "/send/squares.square", {"n": 1})
    assert (refused.status, refused.json["error"]["code"]) == (403, "forbidden_kind")
    assert {kind["kind"] for kind in ask(gateway, SHOP, "GET", "/kinds").json} == {
        "email.send",
        "email.campaign",
    }
    body = stream({"kind": "squares.square", "task": {"n": 1}}, {"kind": "email.send", "task": MAIL})
    many = gateway.ask("POST", "/send", body, media="application/x-ndjson", authorization=f"Bearer {SHOP}")
    assert many.lines[-1]["summary"] == {"accepted": 1, "duplicates": 0, "refused": 1, "aborted": None}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("queue=files", "forbidden_queue"),
        ("overflow=shed", "forbidden_overflow"),
        ("id=task-of-another", "forbidden_id"),
        ("id=shopper:1", "forbidden_id"),
    ],
)
def test_each_right_is_missed_where_it_is_asked(gateway: Running, query: str, code: str) -> None:
    """Without the right a narrow token is refused, by one task and by a stream; a token for all has each."""
    refused = ask(gateway, SHOP, "POST", f"/send/email.send?{query}", MAIL)
    assert (refused.status, refused.json["error"]["code"]) == (403, code)
    assert ask(gateway, ALL, "POST", f"/send/email.send?{query}", MAIL).status == 202
    name, value = query.split("=")
    line = {"kind": "email.send", "task": MAIL} | ({} if name == "overflow" else {name: value})
    path = f"/send?{query}" if name == "overflow" else "/send"
    many = gateway.ask(
        "POST", path, stream(line), media="application/x-ndjson", authorization=f"Bearer {SHOP}"
    )
    assert many.lines[0]["error"]["code"] == code


#: The routes that touch nothing of anybody else: what they answer is by the kinds of the token.
OPEN_TO_ALL = {
    "GET /kinds",
    "GET /metrics",
    "GET /health/live",
    "GET /health/ready",
    "POST /batches",
    "POST /send",
}


def test_every_other_route_is_closed_to_a_token_without_rights(gateway: Running) -> None:
    """Each route of the schema, also a later one, refuses tasks, batches and kinds of others."""
    task = ask(gateway, ALL, "POST", "/send/squares.square?track=true", {"n": 1}).headers["Location"]
    batch = ask(gateway, ALL, "POST", "/batches").headers["Location"]
    paths = ask(gateway, ALL, "GET", "/openapi.json").json["paths"]
    tried = 0
    for path, methods in paths.items():
        real = path.replace("/tasks/{id}", task).replace("/batches/{id}", batch)
        for method in (each.upper() for each in methods):
            if f"{method} {path}" in OPEN_TO_ALL:
                continue
            answer = ask(gateway, NONE, method, real, {} if method == "POST" else None)
            assert answer.status == 403, (method, path, answer.status)
            tried += 1
    assert tried >= 10
    line = stream({"kind": "email.send", "task": MAIL})
    many = gateway.ask("POST", "/send", line, media="application/x-ndjson", authorization=f"Bearer {NONE}")
    assert many.lines[0]["error"]["code"] == "forbidden_kind"
    assert ask(gateway, NONE, "GET", "/kinds").json == []


def test_rights_open_what_they_name(gateway: Running) -> None:
    """The own queue, an id of the own name space, and what `queues` and `rights` name are open."""
    for query in ("queue=email", "id=shop:1"):
        assert ask(gateway, SHOP, "POST", f"/send/email.send?{query}", MAIL).status == 202
    for query in ("queue=default", "overflow=shed", "id=wide:1"):
        assert ask(gateway, WIDE, "POST", f"/send/email.send?{query}", MAIL).status == 202


def test_a_unique_key_is_of_its_owner(gateway: Running) -> None:
    """A key that one token used hides no task of another."""
    answers = [
        ask(gateway, token, "POST", "/send/email.send?once=one&for_seconds=60", MAIL)
        for token in (SHOP, WIDE, ALL, SHOP)
    ]
    assert [answer.json["duplicate"] for answer in answers] == [False, False, False, True]


def test_a_token_sees_and_cancels_only_what_it_may_send(gateway: Running) -> None:
    """A tracked task of another kind, and one whose kind nobody knows, are closed to a narrow token."""
    square = ask(gateway, ALL, "POST", "/send/squares.square?track=true", {"n": 1}).headers["Location"]
    mail = ask(gateway, SHOP, "POST", "/send/email.send?track=true", MAIL).headers["Location"]
    for path, expected in ((square, 403), (mail, 200), ("/tasks/some-id", 403)):
        assert ask(gateway, SHOP, "GET", path).status == expected
        assert ask(gateway, SHOP, "POST", f"{path}/cancel").status == expected
    assert ask(gateway, ALL, "GET", square).status == 200


def test_a_batch_is_closed_to_the_tokens_of_others(gateway: Running, module_url: str) -> None:
    """A narrow token opens, feeds, reads and cancels its own batches, and no other; one for all may all."""
    with Client(module_url) as client:
        given, nobodys = client.batch(owner="shop").id, client.batch().id
    own, others = (ask(gateway, token, "POST", "/batches").json["id"] for token in (SHOP, ALL))
    for token, expected in ((SHOP, {own: 200, given: 200, others: 403, nobodys: 403}), (ALL, {own: 200})):
        for batch, status in expected.items():
            feed = stream({"kind": "email.send", "task": MAIL})
            fed = gateway.ask(
                "POST",
                f"/batches/{batch}/tasks",
                feed,
                media="application/x-ndjson",
                authorization=f"Bearer {token}",
            )
            sent = ask(gateway, token, "POST", f"/send/email.send?batch={batch}", MAIL)
            assert (fed.status, sent.status) == (status, 403 if status == 403 else 202)
            assert ask(gateway, token, "GET", f"/batches/{batch}").status == status
    for batch, status in ((others, 403), (own, 200)):
        for verb in ("close", "cancel"):
            assert ask(gateway, SHOP, "POST", f"/batches/{batch}/{verb}").status == status
        assert ask(gateway, SHOP, "GET", f"/batches/{batch}/results").status == status
    assert ask(gateway, ALL, "GET", f"/batches/{others}").json["sent"] == 0
    assert ask(gateway, SHOP, "GET", "/batches/00000000-0000-4000-8000-000000000000").status == 404


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


def test_the_command_makes_a_token_and_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    """What `millpond gateway token` prints opens the kinds it was made for, and the hash is not the token."""
    assert millpond.main(["gateway", "token", "shop", "--kind", "email.*", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    secret = made.pop("token")
    found = find_principal([GatewayToken(**made)], secret)
    assert found is not None
    assert (found.name, found.may_use("email.send"), found.may_use("squares.square")) == ("shop", True, False)
    assert secret not in made["hash"]
    assert millpond.main(["gateway", "token", "a name"]) == 2

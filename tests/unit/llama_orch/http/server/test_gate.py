"""The gate: tokens, peers, web pages, error formats and routing."""

import hmac
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from llama_orch.contracts.errors import ApiError, ErrorCode
from llama_orch.http.server.access import Access, Caller, authorize
from llama_orch.http.server.app import create_app
from llama_orch.http.server.browsers import WebPolicy
from llama_orch.http.server.exchange import Exchange, HotRoutes, Message
from llama_orch.http.server.gate import Gate
from llama_orch.settings.types import Secret
from llama_orch.telemetry.events.service import PAGE_REFUSED, TOKEN_REFUSED
from llama_orch.telemetry.log_limit import LIMIT

TOKEN = "0123456789abcdef"
LOOPBACK = ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None)
REMOTE = ("192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7", "0.0.0.0")
OPEN = ("/health", "/ready", "/v2/meta/version", "/v2/meta/capabilities")
CLOSED = ("/v2/tasks", "/metrics", "/", "/v2/meta", "/v2/metadata", "/healthy", "/v2/tasks/health", "/Health")
GOOD = f"Bearer {TOKEN}"
BAD = (
    "Bearer wrong",
    "Bearer",
    TOKEN,
    f"Basic {TOKEN}",
    f"Bearer {TOKEN}x",
    "Bearer ",
    f"Bearer {TOKEN[:-1]}",
    "Bearer ü",
)

NO_TOKEN = Access()
TOKEN_REQUIRED = Access(Secret(TOKEN))
LOOPBACK_EXCUSED = Access(Secret(TOKEN), loopback_excused=True)


def refusal_code(
    access: Access, path: str, peer: str | None, authorization: str | None = None, key: str | None = None
) -> str:
    """Return the error code, or "" if the request is served."""
    refusal = access.refusal(path, Caller(peer, authorization, key))
    if refusal is None:
        return ""
    assert refusal.status == (403 if refusal.body.code is ErrorCode.NON_LOOPBACK_WITHOUT_TOKEN else 401)
    assert refusal.body.hint
    assert TOKEN not in f"{refusal.body!r} {refusal}"
    return refusal.body.code


ALL_PEERS = (*LOOPBACK, *REMOTE)


@pytest.mark.parametrize("access", [NO_TOKEN, TOKEN_REQUIRED, LOOPBACK_EXCUSED])
def test_open_paths_need_no_token(access: Access) -> None:
    for path in OPEN:
        assert refusal_code(access, path, REMOTE[0]) == ""
        assert refusal_code(access, path, REMOTE[0], "Bearer wrong") == ""


@pytest.mark.parametrize("path", CLOSED)
def test_other_paths_are_closed(path: str) -> None:
    assert refusal_code(NO_TOKEN, path, REMOTE[0]) == "NON_LOOPBACK_WITHOUT_TOKEN"
    assert refusal_code(TOKEN_REQUIRED, path, REMOTE[0]) == "MISSING_TOKEN"


def test_without_token_only_this_machine_is_served() -> None:
    for shown in (None, GOOD, "Bearer wrong"):
        assert {refusal_code(NO_TOKEN, "/v2/tasks", peer, shown) for peer in LOOPBACK} == {""}
        assert {refusal_code(NO_TOKEN, "/v2/tasks", peer, shown) for peer in REMOTE} == {"NON_LOOPBACK_WITHOUT_TOKEN"}
    assert refusal_code(NO_TOKEN, "/v2/tasks", REMOTE[0], None, TOKEN) == "NON_LOOPBACK_WITHOUT_TOKEN"


def test_with_token_every_peer_needs_it() -> None:
    for peer in ALL_PEERS:
        assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", peer, GOOD) == ""
        assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", peer) == "MISSING_TOKEN"
        assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", peer, "Bearer wrong") == "BAD_TOKEN"
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", None, "") == "MISSING_TOKEN"


def test_bearer_token_must_match_exactly() -> None:
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", None, f"bearer  {TOKEN} ") == ""
    assert {refusal_code(TOKEN_REQUIRED, "/v2/tasks", None, bad) for bad in BAD} == {"BAD_TOKEN"}


def test_auth_optional_excuses_loopback_only() -> None:
    assert {refusal_code(LOOPBACK_EXCUSED, "/v2/tasks", peer) for peer in LOOPBACK} == {""}
    assert {refusal_code(LOOPBACK_EXCUSED, "/v2/tasks", peer) for peer in REMOTE} == {"MISSING_TOKEN"}
    assert refusal_code(LOOPBACK_EXCUSED, "/v2/tasks", REMOTE[0], GOOD) == ""


def test_api_key_equals_a_bearer_token() -> None:
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", REMOTE[0], None, TOKEN) == ""
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", REMOTE[0], "", f" {TOKEN} ") == ""
    wrong = ("wrong", GOOD, f"{TOKEN}x", TOKEN[:-1], "ü", " ")
    assert {refusal_code(TOKEN_REQUIRED, "/v2/tasks", REMOTE[0], None, key) for key in wrong} == {"BAD_TOKEN"}
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", REMOTE[0], None, "") == "MISSING_TOKEN"


def test_one_valid_token_of_two_is_enough() -> None:
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", "192.0.2.7", GOOD, "wrong") == ""
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", "192.0.2.7", "Bearer wrong", TOKEN) == ""
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", "192.0.2.7", f"Basic {TOKEN}", "wrong") == "BAD_TOKEN"


def test_only_requests_without_token_rely_on_address() -> None:
    for peer in ("127.0.0.1", "192.0.2.7"):
        assert NO_TOKEN.relies_on_address(Caller(peer, GOOD))
        assert not TOKEN_REQUIRED.relies_on_address(Caller(peer, GOOD))
        assert not LOOPBACK_EXCUSED.relies_on_address(Caller(peer, GOOD))
        assert LOOPBACK_EXCUSED.relies_on_address(Caller(peer, "Bearer wrong")) == (peer == "127.0.0.1")
        assert not Access(everybody=True).relies_on_address(Caller(peer))
    assert not NO_TOKEN.relies_on_address(Caller(None))


@given(st.text(), st.text())
def test_random_token_is_refused(path: str, authorization: str) -> None:
    if path in OPEN or path.startswith("/v2/meta/") or authorization.split()[1:] == [TOKEN]:
        return
    assert refusal_code(TOKEN_REQUIRED, path, "192.0.2.7", authorization) in ("MISSING_TOKEN", "BAD_TOKEN")


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def record(given: bytes, own: bytes) -> bool:
        compared.append((given, own))
        return False

    monkeypatch.setattr(hmac, "compare_digest", record)
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", None, GOOD) == "BAD_TOKEN"
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


SECOND = "fedcba9876543210"
TWO_TOKENS = Access(Secret(TOKEN), second=Secret(SECOND))


def test_second_token_is_accepted() -> None:
    for token in (TOKEN, SECOND):
        assert refusal_code(TWO_TOKENS, "/v2/tasks", "192.0.2.7", f"Bearer {token}") == ""
        assert refusal_code(TWO_TOKENS, "/v2/tasks", "192.0.2.7", None, token) == ""
    for wrong in BAD:
        assert refusal_code(TWO_TOKENS, "/v2/tasks", "192.0.2.7", wrong) == "BAD_TOKEN"
    assert refusal_code(TWO_TOKENS, "/v2/tasks", "192.0.2.7", None) == "MISSING_TOKEN"
    assert refusal_code(TOKEN_REQUIRED, "/v2/tasks", "192.0.2.7", f"Bearer {SECOND}") == "BAD_TOKEN"


def test_second_token_alone_is_not_accepted() -> None:
    alone = Access(second=Secret(TOKEN))
    assert refusal_code(alone, "/v2/tasks", "192.0.2.7", GOOD) == "NON_LOOPBACK_WITHOUT_TOKEN"


@pytest.mark.parametrize("shown", [TOKEN, SECOND, "wrong"])
def test_both_tokens_are_always_compared(shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def record(given: bytes, own: bytes) -> bool:
        compared.append(own.decode())
        return given == own

    monkeypatch.setattr(hmac, "compare_digest", record)
    assert (refusal_code(TWO_TOKENS, "/v2/tasks", None, f"Bearer {shown}") == "") == (shown != "wrong")
    assert compared == [TOKEN, SECOND]


async def request(
    gate: Gate, path: str, headers: dict[str, str] | None = None, method: str = "GET", peer: str | None = "192.0.2.7"
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Send one request through `gate`; return status, headers and JSON body."""
    sent: list[Message] = []
    body_parts = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if not body_parts:
            await trio.sleep_forever()  # the client stays
        return body_parts.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (name.encode(), value.encode()) for name, value in {"host": "localhost", **(headers or {})}.items()
        ],
        "client": peer and (peer, 1),
        "server": ("127.0.0.1", 80),
        "extensions": {},
    }
    await gate(scope, receive, send)
    head = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], head, json.loads(body) if "json" in head.get("content-type", "") else {}


def gate(access: Access = NO_TOKEN, not_ready: list[str] | None = None, web: WebPolicy | None = None) -> Gate:
    hot = HotRoutes()

    async def greet(exchange: Exchange) -> None:
        await exchange.send_json(200, {"hello": exchange.variables["name"]})

    async def refuse(_exchange: Exchange) -> None:
        raise access.refusal("/x", Caller("192.0.2.7")) or ApiError

    hot.add("GET", "/hot/{name}", greet)
    hot.add("GET", "/refused", refuse)
    return Gate(create_app("test", lambda: not_ready or [], CollectorRegistry()), access, hot, web)


async def test_refusal_is_json_with_correlation_id() -> None:
    status, head, body = await request(gate(TOKEN_REQUIRED), "/hot/x", {"x-correlation-id": "mine"})
    assert (status, head["www-authenticate"]) == (401, "Bearer")
    assert (body["code"], body["retriable"]) == ("MISSING_TOKEN", False)
    assert (head["x-correlation-id"], body["correlation_id"]) == ("mine", "mine")


@pytest.mark.parametrize("path", ["/health", "/hot/x", "/no-such-path", "/metrics"])
async def test_every_answer_carries_the_correlation_id(path: str) -> None:
    given = await request(gate(), path, {"x-correlation-id": "mine"}, peer=None)
    assert given[1]["x-correlation-id"] == "mine"
    made = await request(gate(), path, {"x-correlation-id": "two words"}, peer=None)
    assert len(made[1]["x-correlation-id"]) == 36


async def test_api_key_is_accepted_by_gate() -> None:
    status, _head, body = await request(gate(TOKEN_REQUIRED), "/hot/x", {"x-api-key": TOKEN})
    assert (status, body) == (200, {"hello": "x"})
    assert (await request(gate(TOKEN_REQUIRED), "/hot/x", {"x-api-key": "wrong"}))[0] == 401


@pytest.mark.parametrize(
    ("path", "kind", "header"),
    [
        ("/v1/messages", lambda body: body["error"]["type"], "request-id"),
        ("/v1/chat/completions", lambda body: body["error"]["code"].lower(), "x-request-id"),
        ("/v2/tasks", lambda body: body["code"].lower(), "x-correlation-id"),
    ],
)
async def test_refusal_has_shape_and_request_id_of_path(
    path: str, kind: Callable[[dict[str, Any]], str], header: str
) -> None:
    status, head, body = await request(gate(TOKEN_REQUIRED), path, {"x-correlation-id": "mine"})
    assert (status, head[header]) == (401, "mine")
    assert kind(body) in ("authentication_error", "missing_token")
    status, head, body = await request(gate(), path, {"x-correlation-id": "mine"})
    assert (status, head[header]) == (403, "mine")
    assert kind(body) in ("permission_error", "non_loopback_without_token")
    status, head, body = await request(gate(), path, {"x-correlation-id": "mine"}, peer=None)
    assert (status, head[header]) == (404, "mine")
    assert kind(body) in ("not_found_error", "not_found")


def token_log(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return and clear the log lines on wrong tokens."""
    lines = [r.getMessage() for r in caplog.records if getattr(r, "event", None) is TOKEN_REFUSED]
    caplog.clear()
    return lines


async def test_wrong_token_is_logged_as_fingerprint_with_peer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong, other = "a-wrong-and-secret-token", "Basic dXNlcjpwYXNz"
    fingerprint = f"token_fp6={sha256(wrong.encode()).hexdigest()[:6]}"
    guarded = gate(TOKEN_REQUIRED)
    await request(guarded, "/hot/x", {"authorization": f"Bearer {wrong}"})
    await request(guarded, "/hot/x", {"authorization": other, "x-api-key": wrong}, peer="192.0.2.8")
    await request(guarded, "/hot/x", {"authorization": other}, peer="192.0.2.9")
    await request(guarded, "/hot/x", {"authorization": f"Bearer {wrong}"}, peer=None)
    bearer, key, neither, local = lines = token_log(caplog)
    assert ("192.0.2.7" in bearer, "192.0.2.8" in key, "192.0.2.9" in neither) == (True, True, True)
    assert "Unix socket" in local
    assert [fingerprint in line for line in lines] == [True, True, False, True]
    assert wrong not in str(lines)
    assert other.split()[1] not in str(lines)


async def test_valid_or_missing_token_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    guarded = gate(TOKEN_REQUIRED)
    await request(guarded, "/hot/x", {"authorization": GOOD})
    await request(guarded, "/hot/x")
    await request(guarded, "/health", {"authorization": "Bearer wrong"})
    await request(gate(), "/hot/x", {"authorization": "Bearer wrong"})
    assert token_log(caplog) == []


async def test_each_peer_is_logged_once_a_minute(
    caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    guarded = gate(TOKEN_REQUIRED)

    async def lines_of(peer: str) -> int:
        assert (await request(guarded, "/hot/x", {"authorization": "Bearer wrong"}, peer=peer))[0] == 401
        return len(token_log(caplog))

    assert [await lines_of("192.0.2.7") for _ in range(3)] == [1, 0, 0]
    assert await lines_of("192.0.2.8") == 1
    mock_clock.jump(59)
    assert await lines_of("192.0.2.7") == 0
    mock_clock.jump(1)
    assert [await lines_of("192.0.2.7") for _ in range(2)] == [1, 0]


async def test_many_peers_do_not_flood_the_log(
    caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    guarded, lines = gate(TOKEN_REQUIRED), []
    for _minute in range(2):
        for number in range(3 * LIMIT):
            await request(guarded, "/hot/x", {"authorization": "Bearer wrong"}, peer=f"2001:db8::{number:x}")
        lines.append(len(token_log(caplog)))
        mock_clock.jump(60)
    assert lines == [LIMIT, LIMIT]


async def test_liveness_and_readiness() -> None:
    assert (await request(gate(), "/health"))[::2] == (200, {"status": "ok"})
    assert (await request(gate(), "/ready"))[::2] == (200, {"ready": True, "reasons": []})
    waiting = gate(not_ready=["no pool is ready"])
    assert (await request(waiting, "/ready"))[::2] == (503, {"ready": False, "reasons": ["no pool is ready"]})


async def test_404_and_405_have_the_common_error_format() -> None:
    status, _head, body = await request(gate(), "/nothing", peer=None)
    assert (status, body["code"], body["reason"]) == (404, "NOT_FOUND", "no_such_path")
    assert (body["message"], body["hint"]) == ("test has no path /nothing", "See test(8).")
    assert len((await request(gate(), f"/{'x' * 5000}", peer=None))[2]["message"]) < 200
    assert body["correlation_id"]
    status, head, body = await request(gate(), "/health", method="DELETE")
    assert (status, body["code"], body["message"]) == (405, "INVALID_PARAMS", "/health does not support DELETE")
    assert "GET" in head["allow"]


async def test_hot_routes_match_whole_paths_only() -> None:
    assert (await request(gate(), "/hot/x", peer=None))[2] == {"hello": "x"}
    for path in ("/hot/", "/hot/x/y", "/hot/x/", "/xhot/x", "/hot", "/refused\n"):
        assert (await request(gate(), path, peer=None))[0] == 404
    assert (await request(gate(), "/hot/x", method="POST", peer=None))[0] == 404


EVIL, FRIEND = "https://evil.example", "https://chat.example.org"
LOCAL = "127.0.0.1"
WEB = WebPolicy(origins=(FRIEND,))
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}


async def test_page_cannot_use_a_daemon_without_token() -> None:
    status, head, body = await request(gate(), "/hot/x", {"origin": EVIL, "sec-fetch-site": "cross-site"}, peer=LOCAL)
    assert (status, body["code"]) == (403, "FORBIDDEN_ORIGIN")
    assert "LLORCH_ALLOWED_ORIGINS" in body["hint"]
    assert "access-control-allow-origin" not in head
    status, _head, body = await request(gate(), "/metrics", {"host": "evil.example"}, peer=LOCAL)
    assert (status, body["code"]) == (403, "FORBIDDEN_HOST")


@pytest.mark.parametrize("path", ["/hot/x", "/no-such-path", "/health"])
async def test_absolute_target_decides_the_host(path: str) -> None:
    status, _head, body = await request(gate(), f"http://evil.example{path}", peer=LOCAL)
    expected = (200, None) if path == "/health" else (403, "FORBIDDEN_HOST")
    assert (status, body.get("code")) == expected
    assert (await request(gate(), f"http://localhost{path}", {"host": "evil.example"}, peer=LOCAL))[0] in (200, 404)


async def test_page_with_token_is_served() -> None:
    shown = {"origin": EVIL, "sec-fetch-site": "cross-site", "host": "evil.example"}
    for access in (TOKEN_REQUIRED, LOOPBACK_EXCUSED):
        status, head, _body = await request(gate(access), "/hot/x", {**shown, "authorization": GOOD}, peer=LOCAL)
        assert (status, "access-control-allow-origin" in head) == (200, False)
    assert (await request(gate(TOKEN_REQUIRED), "/hot/x", shown, peer=LOCAL))[2]["code"] == "MISSING_TOKEN"
    assert (await request(gate(LOOPBACK_EXCUSED), "/hot/x", shown, peer=LOCAL))[2]["code"] == "FORBIDDEN_HOST"


async def test_unix_socket_skips_page_checks() -> None:
    assert (await request(gate(), "/hot/x", {"host": "anything", "origin": EVIL}, peer=None))[0] == 200


@pytest.mark.parametrize("path", ["/hot/x", "/no-such-path", "/health"])
@pytest.mark.parametrize("access", [NO_TOKEN, TOKEN_REQUIRED])
async def test_allowed_page_may_read_every_answer(path: str, access: Access) -> None:
    allowing = gate(access, web=WEB)
    sent = {"origin": FRIEND, "sec-fetch-site": "cross-site", "authorization": GOOD}
    _status, head, _body = await request(allowing, path, sent, peer=LOCAL)
    assert (head["access-control-allow-origin"], head["access-control-expose-headers"]) == (FRIEND, "*")
    assert "access-control-allow-credentials" not in head
    refusal_code = await request(gate(TOKEN_REQUIRED, web=WEB), path, {"origin": FRIEND}, peer=LOCAL)
    assert refusal_code[1]["access-control-allow-origin"] == FRIEND, "also the refusal, or the page cannot show it"


@pytest.mark.parametrize("access", [NO_TOKEN, TOKEN_REQUIRED])
async def test_preflight_is_answered_by_origin_without_token(access: Access) -> None:
    allowing = gate(access, web=WEB)
    status, head, _body = await request(allowing, "/hot/x", {"origin": FRIEND, **PREFLIGHT}, "OPTIONS", LOCAL)
    assert (status, head["access-control-allow-origin"]) == (204, FRIEND)
    assert "POST" in head["access-control-allow-methods"]
    assert head["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
    for origin in (EVIL, "null"):
        status, head, body = await request(allowing, "/hot/x", {"origin": origin, **PREFLIGHT}, "OPTIONS", LOCAL)
        assert (status, body["code"]) == (403, "FORBIDDEN_ORIGIN")
        assert "access-control-allow-origin" not in head


async def test_refused_page_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    guarded = gate()
    for _ in range(3):
        await request(guarded, "/hot/x", {"origin": EVIL}, peer=LOCAL)
    lines = [r.getMessage() for r in caplog.records if getattr(r, "event", None) is PAGE_REFUSED]
    assert len(lines) == 1
    assert EVIL in lines[0]


async def test_head_is_checked_before_authorization() -> None:
    for access in (NO_TOKEN, TOKEN_REQUIRED):
        assert (await request(gate(access), "/hot/x", method="CONNECT"))[0] == 501
        assert (await request(gate(access), "/hot/x", {"upgrade": "websocket"}))[0] == 400
    assert (await request(gate(), "//hot//x", peer=None))[2] == {"hello": "x"}
    assert (await request(gate(TOKEN_REQUIRED), "/v2/meta/../../hot/x", peer=LOCAL))[0] == 401


async def test_websocket_scope_is_ignored() -> None:
    async def never(*_: object) -> Any:
        raise AssertionError("nothing is read or sent")

    await gate()({"type": "websocket"}, never, never)


def test_page_needs_no_token_and_nothing_else_is_open() -> None:
    with_page, remote = Access(Secret(TOKEN), page=True), REMOTE[0]
    for path in ("/", "/page/main.js"):
        assert refusal_code(with_page, path, remote) == ""
        assert refusal_code(TOKEN_REQUIRED, path, remote) == "MISSING_TOKEN"
        assert refusal_code(Access(page=True), path, remote) == "NON_LOOPBACK_WITHOUT_TOKEN"
    for path in ("/v2/events", "/page", "/pages/x", "/openapi.json"):
        assert refusal_code(with_page, path, remote) == "MISSING_TOKEN"


@pytest.mark.parametrize(
    ("path", "page", "host", "origin", "code"),
    [
        ("/", True, "localhost:8080", None, None),
        ("/", False, "localhost:8080", None, "FORBIDDEN_ORIGIN"),
        ("/", True, "evil.example", None, "FORBIDDEN_HOST"),
        ("/", True, "localhost:8080", "http://evil.example", "FORBIDDEN_ORIGIN"),
        ("/page/main.js", True, "localhost:8080", None, "FORBIDDEN_ORIGIN"),
        ("/v2/events", True, "localhost:8080", None, "FORBIDDEN_ORIGIN"),
    ],
)
def test_other_sites_may_only_link_to_the_page(
    path: str, page: bool, host: str, origin: str | None, code: str | None
) -> None:
    caller = Caller("127.0.0.1", host=host, origin=origin, site="cross-site")
    refused = authorize(Access(page=page), WebPolicy(), caller, path, "http")
    assert (refused.body.code if refused else None) == code

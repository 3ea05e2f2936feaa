"""Who may ask: the table of CONTRACT's rules, path by path and peer by peer."""

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
from llama_orch.http.server.app import create_app
from llama_orch.http.server.browsers import WebPolicy
from llama_orch.http.server.exchange import Exchange, HotRoutes, Message
from llama_orch.http.server.gate import Access, Asker, Gate
from llama_orch.settings.types import Secret
from llama_orch.telemetry.events import PAGE_REFUSED, TOKEN_REFUSED
from llama_orch.telemetry.sparing import LIMIT

TOKEN = "0123456789abcdef"
LOOPBACK = ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", None)
STRANGERS = ("192.0.2.7", "2001:db8::1", "::ffff:192.0.2.7", "0.0.0.0")
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

WITHOUT = Access()
WITH = Access(Secret(TOKEN))
EXCUSED = Access(Secret(TOKEN), loopback_excused=True)


def refused(
    access: Access, path: str, peer: str | None, authorization: str | None = None, key: str | None = None
) -> str:
    """The code of the refusal, or "" where the request is served."""
    refusal = access.refusal(path, Asker(peer, authorization, key))
    if refusal is None:
        return ""
    assert refusal.status == (403 if refusal.body.code is ErrorCode.NON_LOOPBACK_WITHOUT_TOKEN else 401)
    assert refusal.body.hint
    assert TOKEN not in f"{refusal.body!r} {refusal}"
    return refusal.body.code


ANYBODY = (*LOOPBACK, *STRANGERS)


def test_health_readiness_and_meta_are_open_to_everyone() -> None:
    asked = [(access, path, peer) for access in (WITHOUT, WITH, EXCUSED) for path in OPEN for peer in ANYBODY]
    assert {refused(*case, shown) for case in asked for shown in (None, "Bearer wrong")} == {""}


@pytest.mark.parametrize("path", CLOSED)
def test_without_a_token_only_this_machine_is_served(path: str) -> None:
    for shown in (None, GOOD, *BAD):
        assert {refused(WITHOUT, path, peer, shown) for peer in LOOPBACK} == {""}
        assert {refused(WITHOUT, path, peer, shown) for peer in STRANGERS} == {"NON_LOOPBACK_WITHOUT_TOKEN"}
        assert {refused(WITHOUT, path, peer, None, shown) for peer in STRANGERS} == {"NON_LOOPBACK_WITHOUT_TOKEN"}


@pytest.mark.parametrize("path", CLOSED)
def test_with_a_token_every_peer_needs_it(path: str) -> None:
    for peer in ANYBODY:
        assert {refused(WITH, path, peer, good) for good in (GOOD, f"bearer  {TOKEN} ")} == {""}
        assert {refused(WITH, path, peer, none) for none in (None, "")} == {"MISSING_TOKEN"}
        assert {refused(WITH, path, peer, bad) for bad in BAD} == {"BAD_TOKEN"}


@pytest.mark.parametrize("path", CLOSED)
def test_auth_optional_excuses_loopback_only(path: str) -> None:
    assert {refused(EXCUSED, path, peer) for peer in LOOPBACK} == {""}
    assert {refused(EXCUSED, path, peer) for peer in STRANGERS} == {"MISSING_TOKEN"}
    assert refused(EXCUSED, path, STRANGERS[0], GOOD) == ""


def test_api_key_equals_a_bearer_token() -> None:
    for peer in ANYBODY:
        assert refused(WITH, "/v2/tasks", peer, None, TOKEN) == ""
        assert refused(WITH, "/v2/tasks", peer, "", f" {TOKEN} ") == ""
        wrong = ("wrong", GOOD, f"{TOKEN}x", TOKEN[:-1], "ü", " ")
        assert {refused(WITH, "/v2/tasks", peer, None, key) for key in wrong} == {"BAD_TOKEN"}
        assert refused(WITH, "/v2/tasks", peer, None, "") == "MISSING_TOKEN"


def test_of_two_shown_tokens_one_is_enough() -> None:
    assert refused(WITH, "/v2/tasks", "192.0.2.7", GOOD, "wrong") == ""
    assert refused(WITH, "/v2/tasks", "192.0.2.7", "Bearer wrong", TOKEN) == ""
    assert refused(WITH, "/v2/tasks", "192.0.2.7", f"Basic {TOKEN}", "wrong") == "BAD_TOKEN"


def test_only_requests_without_proof_are_served_by_place() -> None:
    for peer in ("127.0.0.1", "192.0.2.7"):
        assert WITHOUT.by_place(Asker(peer, GOOD))
        assert not WITH.by_place(Asker(peer, GOOD))
        assert not EXCUSED.by_place(Asker(peer, GOOD))
        assert EXCUSED.by_place(Asker(peer, "Bearer wrong")) == (peer == "127.0.0.1")
        assert not Access(everybody=True).by_place(Asker(peer))
    assert not WITHOUT.by_place(Asker(None))


@given(st.text(), st.text())
def test_no_other_token_opens(path: str, authorization: str) -> None:
    if path in OPEN or path.startswith("/v2/meta/") or authorization.split()[1:] == [TOKEN]:
        return
    assert refused(WITH, path, "192.0.2.7", authorization) in ("MISSING_TOKEN", "BAD_TOKEN")


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def watched(given: bytes, own: bytes) -> bool:
        compared.append((given, own))
        return False

    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert refused(WITH, "/v2/tasks", None, GOOD) == "BAD_TOKEN"
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


SECOND = "fedcba9876543210"
BOTH = Access(Secret(TOKEN), second=Secret(SECOND))


def test_a_second_token_is_as_good_as_the_first() -> None:
    for token in (TOKEN, SECOND):
        assert refused(BOTH, "/v2/tasks", "192.0.2.7", f"Bearer {token}") == ""
        assert refused(BOTH, "/v2/tasks", "192.0.2.7", None, token) == ""
    for wrong in BAD:
        assert refused(BOTH, "/v2/tasks", "192.0.2.7", wrong) == "BAD_TOKEN"
    assert refused(BOTH, "/v2/tasks", "192.0.2.7", None) == "MISSING_TOKEN"
    assert refused(WITH, "/v2/tasks", "192.0.2.7", f"Bearer {SECOND}") == "BAD_TOKEN"


def test_a_second_token_alone_opens_nothing() -> None:
    alone = Access(second=Secret(TOKEN))
    assert refused(alone, "/v2/tasks", "192.0.2.7", GOOD) == "NON_LOOPBACK_WITHOUT_TOKEN"


@pytest.mark.parametrize("shown", [TOKEN, SECOND, "wrong"])
def test_both_tokens_are_compared_whichever_is_right(shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def watched(given: bytes, own: bytes) -> bool:
        compared.append(own.decode())
        return given == own

    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert (refused(BOTH, "/v2/tasks", None, f"Bearer {shown}") == "") == (shown != "wrong")
    assert compared == [TOKEN, SECOND]


async def asked(
    gate: Gate, path: str, headers: dict[str, str] | None = None, method: str = "GET", peer: str | None = "192.0.2.7"
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and JSON body of one request through `gate`."""
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


def gate(access: Access = WITHOUT, not_ready: list[str] | None = None, web: WebPolicy | None = None) -> Gate:
    hot = HotRoutes()

    async def greet(exchange: Exchange) -> None:
        await exchange.send_json(200, {"hello": exchange.variables["name"]})

    async def refuse(_exchange: Exchange) -> None:
        raise access.refusal("/x", Asker("192.0.2.7")) or ApiError

    hot.add("GET", "/hot/{name}", greet)
    hot.add("GET", "/refused", refuse)
    return Gate(create_app("test", lambda: not_ready or [], CollectorRegistry()), access, hot, web)


async def test_a_refusal_is_json_with_the_correlation_id_in_head_and_body() -> None:
    status, head, body = await asked(gate(WITH), "/hot/x", {"x-correlation-id": "mine"})
    assert (status, head["www-authenticate"]) == (401, "Bearer")
    assert (body["code"], body["retriable"]) == ("MISSING_TOKEN", False)
    assert (head["x-correlation-id"], body["correlation_id"]) == ("mine", "mine")


@pytest.mark.parametrize("path", ["/health", "/hot/x", "/no-such-path", "/metrics"])
async def test_every_answer_carries_the_correlation_id(path: str) -> None:
    given = await asked(gate(), path, {"x-correlation-id": "mine"}, peer=None)
    assert given[1]["x-correlation-id"] == "mine"
    made = await asked(gate(), path, {"x-correlation-id": "two words"}, peer=None)
    assert len(made[1]["x-correlation-id"]) == 36


async def test_an_api_key_opens_the_gate() -> None:
    status, _head, body = await asked(gate(WITH), "/hot/x", {"x-api-key": TOKEN})
    assert (status, body) == (200, {"hello": "x"})
    assert (await asked(gate(WITH), "/hot/x", {"x-api-key": "wrong"}))[0] == 401


@pytest.mark.parametrize(
    ("path", "kind", "header"),
    [
        ("/v1/messages", lambda body: body["error"]["type"], "request-id"),
        ("/v1/chat/completions", lambda body: body["error"]["code"].lower(), "x-request-id"),
        ("/v2/tasks", lambda body: body["code"].lower(), "x-correlation-id"),
    ],
)
async def test_refusals_are_in_the_shape_of_their_path_and_have_its_request_id(
    path: str, kind: Callable[[dict[str, Any]], str], header: str
) -> None:
    status, head, body = await asked(gate(WITH), path, {"x-correlation-id": "mine"})
    assert (status, head[header]) == (401, "mine")
    assert kind(body) in ("authentication_error", "missing_token")
    status, head, body = await asked(gate(), path, {"x-correlation-id": "mine"})
    assert (status, head[header]) == (403, "mine")
    assert kind(body) in ("permission_error", "non_loopback_without_token")
    status, head, body = await asked(gate(), path, {"x-correlation-id": "mine"}, peer=None)
    assert (status, head[header]) == (404, "mine")
    assert kind(body) in ("not_found_error", "not_found")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of wrong tokens since the last look."""
    lines = [r.getMessage() for r in caplog.records if getattr(r, "event", None) is TOKEN_REFUSED]
    caplog.clear()
    return lines


async def test_a_wrong_token_is_logged_by_its_fingerprint_with_the_peers_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong, other = "a-wrong-and-secret-token", "Basic dXNlcjpwYXNz"
    fingerprint = f"token_fp6={sha256(wrong.encode()).hexdigest()[:6]}"
    guarded = gate(WITH)
    await asked(guarded, "/hot/x", {"authorization": f"Bearer {wrong}"})
    await asked(guarded, "/hot/x", {"authorization": other, "x-api-key": wrong}, peer="192.0.2.8")
    await asked(guarded, "/hot/x", {"authorization": other}, peer="192.0.2.9")
    await asked(guarded, "/hot/x", {"authorization": f"Bearer {wrong}"}, peer=None)
    bearer, key, neither, local = lines = told(caplog)
    assert ("192.0.2.7" in bearer, "192.0.2.8" in key, "192.0.2.9" in neither) == (True, True, True)
    assert "Unix socket" in local
    assert [fingerprint in line for line in lines] == [True, True, False, True]
    assert wrong not in str(lines)
    assert other.split()[1] not in str(lines)


async def test_neither_a_good_token_nor_a_missing_one_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    guarded = gate(WITH)
    await asked(guarded, "/hot/x", {"authorization": GOOD})
    await asked(guarded, "/hot/x")
    await asked(guarded, "/health", {"authorization": "Bearer wrong"})
    await asked(gate(), "/hot/x", {"authorization": "Bearer wrong"})
    assert told(caplog) == []


async def test_each_peer_has_a_line_a_minute(
    caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    guarded = gate(WITH)

    async def lines_of(peer: str) -> int:
        assert (await asked(guarded, "/hot/x", {"authorization": "Bearer wrong"}, peer=peer))[0] == 401
        return len(told(caplog))

    assert [await lines_of("192.0.2.7") for _ in range(3)] == [1, 0, 0]
    assert await lines_of("192.0.2.8") == 1
    mock_clock.jump(59)
    assert await lines_of("192.0.2.7") == 0
    mock_clock.jump(1)
    assert [await lines_of("192.0.2.7") for _ in range(2)] == [1, 0]


async def test_many_peers_do_not_flood_the_log(
    caplog: pytest.LogCaptureFixture, mock_clock: trio.testing.MockClock
) -> None:
    guarded, lines = gate(WITH), []
    for _minute in range(2):
        for number in range(3 * LIMIT):
            await asked(guarded, "/hot/x", {"authorization": "Bearer wrong"}, peer=f"2001:db8::{number:x}")
        lines.append(len(told(caplog)))
        mock_clock.jump(60)
    assert lines == [LIMIT, LIMIT]


async def test_liveness_and_readiness() -> None:
    assert (await asked(gate(), "/health"))[::2] == (200, {"status": "ok"})
    assert (await asked(gate(), "/ready"))[::2] == (200, {"ready": True, "reasons": []})
    waiting = gate(not_ready=["no pool is ready"])
    assert (await asked(waiting, "/ready"))[::2] == (503, {"ready": False, "reasons": ["no pool is ready"]})


async def test_what_is_not_there_or_not_so_is_said_in_the_shape_of_all_errors() -> None:
    status, _head, body = await asked(gate(), "/nothing", peer=None)
    assert (status, body["code"], body["reason"]) == (404, "NOT_FOUND", "no_such_path")
    assert (body["message"], body["hint"]) == ("test has no path /nothing", "See test(8).")
    assert len((await asked(gate(), f"/{'x' * 5000}", peer=None))[2]["message"]) < 200
    assert body["correlation_id"]
    status, head, body = await asked(gate(), "/health", method="DELETE")
    assert (status, body["code"], body["message"]) == (405, "INVALID_PARAMS", "/health does not support DELETE")
    assert "GET" in head["allow"]


async def test_hot_routes_match_whole_paths_only() -> None:
    assert (await asked(gate(), "/hot/x", peer=None))[2] == {"hello": "x"}
    for path in ("/hot/", "/hot/x/y", "/hot/x/", "/xhot/x", "/hot", "/refused\n"):
        assert (await asked(gate(), path, peer=None))[0] == 404
    assert (await asked(gate(), "/hot/x", method="POST", peer=None))[0] == 404


EVIL, FRIEND = "https://evil.example", "https://chat.example.org"
LOCAL = "127.0.0.1"
WEB = WebPolicy(origins=(FRIEND,))
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-stainless-os"}


async def test_page_cannot_use_a_daemon_without_token() -> None:
    status, head, body = await asked(gate(), "/hot/x", {"origin": EVIL, "sec-fetch-site": "cross-site"}, peer=LOCAL)
    assert (status, body["code"]) == (403, "FORBIDDEN_ORIGIN")
    assert "LLORCH_ALLOWED_ORIGINS" in body["hint"]
    assert "access-control-allow-origin" not in head
    status, _head, body = await asked(gate(), "/metrics", {"host": "evil.example"}, peer=LOCAL)
    assert (status, body["code"]) == (403, "FORBIDDEN_HOST")


@pytest.mark.parametrize("path", ["/hot/x", "/no-such-path", "/health"])
async def test_absolute_target_decides_the_host(path: str) -> None:
    status, _head, body = await asked(gate(), f"http://evil.example{path}", peer=LOCAL)
    expected = (200, None) if path == "/health" else (403, "FORBIDDEN_HOST")
    assert (status, body.get("code")) == expected
    assert (await asked(gate(), f"http://localhost{path}", {"host": "evil.example"}, peer=LOCAL))[0] in (200, 404)


async def test_page_is_no_matter_where_a_token_is_shown() -> None:
    shown = {"origin": EVIL, "sec-fetch-site": "cross-site", "host": "evil.example"}
    for access in (WITH, EXCUSED):
        status, head, _body = await asked(gate(access), "/hot/x", {**shown, "authorization": GOOD}, peer=LOCAL)
        assert (status, "access-control-allow-origin" in head) == (200, False)
    assert (await asked(gate(WITH), "/hot/x", shown, peer=LOCAL))[2]["code"] == "MISSING_TOKEN"
    assert (await asked(gate(EXCUSED), "/hot/x", shown, peer=LOCAL))[2]["code"] == "FORBIDDEN_HOST"


async def test_unix_socket_is_out_of_reach_of_pages() -> None:
    assert (await asked(gate(), "/hot/x", {"host": "anything", "origin": EVIL}, peer=None))[0] == 200


@pytest.mark.parametrize("path", ["/hot/x", "/no-such-path", "/health"])
@pytest.mark.parametrize("access", [WITHOUT, WITH])
async def test_allowed_page_may_read_every_answer(path: str, access: Access) -> None:
    allowing = gate(access, web=WEB)
    sent = {"origin": FRIEND, "sec-fetch-site": "cross-site", "authorization": GOOD}
    _status, head, _body = await asked(allowing, path, sent, peer=LOCAL)
    assert (head["access-control-allow-origin"], head["access-control-expose-headers"]) == (FRIEND, "*")
    assert "access-control-allow-credentials" not in head
    refused = await asked(gate(WITH, web=WEB), path, {"origin": FRIEND}, peer=LOCAL)
    assert refused[1]["access-control-allow-origin"] == FRIEND, "also the refusal, or the page cannot show it"


@pytest.mark.parametrize("access", [WITHOUT, WITH])
async def test_preflight_is_answered_by_origin_without_token(access: Access) -> None:
    allowing = gate(access, web=WEB)
    status, head, _body = await asked(allowing, "/hot/x", {"origin": FRIEND, **PREFLIGHT}, "OPTIONS", LOCAL)
    assert (status, head["access-control-allow-origin"]) == (204, FRIEND)
    assert "POST" in head["access-control-allow-methods"]
    assert head["access-control-allow-headers"] == PREFLIGHT["access-control-request-headers"]
    for origin in (EVIL, "null"):
        status, head, body = await asked(allowing, "/hot/x", {"origin": origin, **PREFLIGHT}, "OPTIONS", LOCAL)
        assert (status, body["code"]) == (403, "FORBIDDEN_ORIGIN")
        assert "access-control-allow-origin" not in head


async def test_refused_page_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    guarded = gate()
    for _ in range(3):
        await asked(guarded, "/hot/x", {"origin": EVIL}, peer=LOCAL)
    lines = [r.getMessage() for r in caplog.records if getattr(r, "event", None) is PAGE_REFUSED]
    assert len(lines) == 1
    assert EVIL in lines[0]


async def test_head_is_judged_before_anything_else() -> None:
    for access in (WITHOUT, WITH):
        assert (await asked(gate(access), "/hot/x", method="CONNECT"))[0] == 501
        assert (await asked(gate(access), "/hot/x", {"upgrade": "websocket"}))[0] == 400
    assert (await asked(gate(), "//hot//x", peer=None))[2] == {"hello": "x"}
    assert (await asked(gate(WITH), "/v2/meta/../../hot/x", peer=LOCAL))[0] == 401


async def test_a_websocket_is_left_alone() -> None:
    async def never(*_: object) -> Any:
        raise AssertionError("nothing is read or sent")

    await gate()({"type": "websocket"}, never, never)

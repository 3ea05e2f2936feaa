"""Sessions over HTTP: read, limited and deleted."""

import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio

from llama_orch.contracts.sessions import SessionView
from queen_rbee.sessions.session import MAX_TURNS, TTL_MS
from tests.unit.queen_rbee.api_client import FULL, ApiClient, api_client
from tests.unit.queen_rbee.v1_client import chat_body, v1_server

ID = UUID("6f9619ff-8b86-d011-b42d-00c04fc964ff")
PATH = f"/v2/sessions/{ID}"


def run_turns(served: ApiClient, session_id: UUID, count: int = 1) -> None:
    """Run `count` turns of 5 tokens in the session."""
    sessions = served.parts.sessions
    for _ in range(count):
        turn = sessions.open_turn(session_id, 5, trio.current_time())
        sessions.place_turn(turn, "p", "r0")
        sessions.end_turn(turn, tokens_in=3, tokens_out=2, engine_ms=10.0, cost=0.5, now=trio.current_time())


async def test_session_has_remaining_budgets(tmp_path: Path):
    served = api_client(tmp_path)
    await served.ask("PUT", PATH, {"tokens_budget": 100, "time_budget_ms": 1000, "cost_budget": 2.5})
    run_turns(served, ID, 2)
    answer = await served.ask("GET", PATH)
    assert answer.status == 200
    left = answer.json.pop("ttl_ms_remaining")
    assert 0 < left <= TTL_MS
    assert answer.json == {
        "session_id": str(ID),
        "turns": 2,
        "turns_remaining": MAX_TURNS - 2,
        "kv_bytes": None,
        "kv_warmth": True,
        "pool_id": "p",
        "replica_id": "r0",
        "tokens_budget_remaining": 90,
        "time_budget_remaining_ms": 980,
        "cost_budget_remaining": 1.5,
    }


async def test_unset_budget_is_null(tmp_path: Path):
    served = api_client(tmp_path)
    run_turns(served, ID)
    answer = await served.ask("GET", PATH)
    names = ("tokens_budget_remaining", "time_budget_remaining_ms", "cost_budget_remaining")
    assert [answer.json[name] for name in names] == [None, None, None]


@pytest.mark.parametrize("path", [PATH, "/v2/sessions/none", "/v2/sessions/%20"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_unknown_session_is_404(method: str, path: str, tmp_path: Path):
    answer = await api_client(tmp_path).ask(method, path)
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")
    assert answer.json["message"].startswith("there is no session")
    assert "GET /v2/sessions" in answer.json["hint"]


async def test_change_returns_the_changed_session(tmp_path: Path):
    served = api_client(tmp_path)
    first = await served.ask("PUT", PATH, {"max_turns": 3, "ttl_ms": 5000})
    assert (first.status, first.json["turns_remaining"]) == (200, 3)
    assert 4000 < first.json["ttl_ms_remaining"] <= 5000
    second = await served.ask("PUT", PATH, {"tokens_budget": 7})
    assert (second.json["turns_remaining"], second.json["tokens_budget_remaining"]) == (3, 7)
    nothing = await served.ask("PUT", PATH, {})
    assert (nothing.json["turns_remaining"], nothing.json["tokens_budget_remaining"]) == (3, 7)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"tokens": 5}, ["tokens"]),
        ({"tokens_budget": -1, "max_turns": 0, "ttl_ms": 10}, ["ttl_ms", "max_turns", "tokens_budget"]),
        ({"cost_budget": "much"}, ["cost_budget"]),
        ([], ["body"]),
    ],
)
async def test_wrong_fields_are_named(body: object, fields: list[str], tmp_path: Path):
    served = api_client(tmp_path)
    assert (await served.ask("PUT", PATH, body)).fields == fields
    assert (await served.ask("GET", PATH)).status == 404


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"cost_budget": NaN}', b'{"cost_budget": 1e999}'])
async def test_invalid_json_is_400(raw: bytes, tmp_path: Path):
    assert (await api_client(tmp_path).ask("PUT", PATH, raw=raw)).status == 400


async def test_session_id_must_be_a_uuid(tmp_path: Path):
    assert (await api_client(tmp_path).ask("PUT", "/v2/sessions/mine", {})).fields == ["session_id"]


async def test_deleted_session_stays_deleted_after_restart(tmp_path: Path):
    served = api_client(tmp_path)
    run_turns(served, ID)
    answer = await served.ask("DELETE", PATH)
    assert (answer.status, answer.json) == (204, None)
    assert (await served.ask("GET", PATH)).status == 404
    after = api_client(tmp_path, served.store.after_restart())
    await after.parts.sessions.load(trio.current_time())
    assert (await after.ask("GET", PATH)).status == 404


@pytest.mark.parametrize("jump_s", [3600, -86400])
async def test_clock_change_keeps_remaining_time(jump_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    served = api_client(tmp_path)
    run_turns(served, ID)
    before = (await served.ask("GET", PATH)).json["ttl_ms_remaining"]
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
    await served.parts.sessions.remove_expired(trio.current_time())
    run_turns(served, ID)
    left = (await served.ask("GET", PATH)).json["ttl_ms_remaining"]
    assert (left, before) == (pytest.approx(TTL_MS, abs=5000), pytest.approx(TTL_MS, abs=5000))
    assert (await served.ask("GET", "/v2/sessions")).json["count"] == 1


async def test_change_survives_restart(tmp_path: Path):
    served = api_client(tmp_path)
    await served.ask("PUT", PATH, {"tokens_budget": 7})
    after = api_client(tmp_path, served.store.after_restart())
    await after.parts.sessions.load(trio.current_time())
    assert (await after.ask("GET", PATH)).json["tokens_budget_remaining"] == 7


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_store_failure_is_503_without_change(method: str, tmp_path: Path):
    served = api_client(tmp_path)
    await served.ask("PUT", PATH, {"tokens_budget": 7})
    served.store.failure = FULL
    answer = await served.ask(method, PATH, {"tokens_budget": 8} if method == "PUT" else None)
    assert (answer.status, answer.json["code"], answer.json["retriable"]) == (503, "INTERNAL", True)
    assert (answer.json["message"], answer.json["hint"]) == ("the disk is full", "Make room.")
    assert (await served.ask("GET", PATH)).json["tokens_budget_remaining"] == 7


async def test_pages_go_from_last_used_to_first(tmp_path: Path):
    served, ids = api_client(tmp_path), [uuid4() for _ in range(5)]
    for session_id in ids:
        run_turns(served, session_id)
    found, path = [], "/v2/sessions?limit=2"
    while True:
        page = (await served.ask("GET", path)).json
        assert page["count"] == len(page["sessions"]) <= 2
        found += [UUID(seen["session_id"]) for seen in page["sessions"]]
        if page["next"] is None:
            break
        path = f"/v2/sessions?limit=2&before={page['next']}"
    assert found == ids[::-1]
    assert (await served.ask("GET", "/v2/sessions")).json["count"] == 5


async def test_empty_list_is_a_list(tmp_path: Path):
    assert (await api_client(tmp_path).ask("GET", "/v2/sessions")).json == {"sessions": [], "count": 0, "next": None}


@pytest.mark.parametrize("limit", ["0", "501", "-1", "x", "", "1.0", "%C2%B2", "1" * 5000], ids=lambda limit: limit[:9])
async def test_invalid_limit_is_named(limit: str, tmp_path: Path):
    assert (await api_client(tmp_path).ask("GET", f"/v2/sessions?limit={limit}")).fields == ["limit"]


@pytest.mark.parametrize("before", ["x", "", str(ID)])
async def test_unknown_before_is_refused(before: str, tmp_path: Path):
    assert (await api_client(tmp_path).ask("GET", f"/v2/sessions?before={before}")).fields == ["before"]


async def test_response_has_fields_of_the_contract(tmp_path: Path):
    served = api_client(tmp_path)
    run_turns(served, ID)
    answer = await served.ask("GET", PATH)
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == set(SessionView.model_fields)


async def test_turn_beyond_budget_is_409_without_retry_on_v1():
    async with v1_server() as running:
        headers = {"x_session_id": str(ID)}
        sessions = running.queen.sessions
        turn = sessions.open_turn(ID, None, trio.current_time())
        sessions.end_turn(turn, tokens_in=3, tokens_out=2, engine_ms=1.0, cost=0.0, now=trio.current_time())
        for _ in range(MAX_TURNS - 1):
            assert (await running.ask(body=chat_body(), **headers)).status == 200
        answer = await running.ask(body=chat_body(), **headers)
        assert (answer.status, answer.error["code"]) == (409, "ADMISSION_REJECT")
        assert "has had its 8 turns" in answer.error["message"]
        assert answer.headers["x-should-retry"] == "false"

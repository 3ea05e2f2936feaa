"""A key lets in for what it permits, and is told in each API's shape why not and when to try again."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.keys import KeySpec
from llama_orch.engines.wire.model_names import model_key
from llama_orch.http.server.access import Access
from llama_orch.keys.secret_keys import digest, new_secret
from llama_orch.settings.types import Secret
from queen_rbee.intake.intake import stored_task
from queen_rbee.intake.recovery import restore
from queen_rbee.keys.endpoints import endpoint_of, open_to_every_key
from queen_rbee.keys.keyring import MAX_FORMER, Keyring
from queen_rbee.keys.owners import owner_of, with_owner
from queen_rbee.keys.permissions import permits_model
from tests.unit.queen_rbee.v1_client import CHAT, V1Exchange, V1Server, build_gate, chat_body, v1_server

SECRETS = {name: new_secret() for name in ("alice", "bob")}
FLEET = "the-token-of-the-fleet"


def spec(name: str, **fields: Any) -> KeySpec:
    return KeySpec(name=name, sha256=digest(SECRETS.setdefault(name, new_secret())), **fields)


def keep(server: V1Server, *keys: KeySpec, token: str | None = FLEET) -> None:
    """Let `keys` be the keys, beside the token of the fleet."""
    server.queen.parts.keys.replace(keys)
    server.gate = build_gate(server.queen, Access(Secret(token)) if token else Access())


async def ask(
    server: V1Server, name: str, path: str = CHAT, body: object = None, method: str = "POST", **headers: str
) -> V1Exchange:
    secret = FLEET if name == "fleet" else SECRETS[name]
    asked = chat_body() if body is None and method == "POST" else body
    return await server.ask(path, asked, method, authorization=f"Bearer {secret}", **headers)


async def test_key_and_token_open_and_other_secret_does_not() -> None:
    async with v1_server() as server:
        keep(server, spec("alice"))
        assert (await ask(server, "alice")).status == 200
        assert (await ask(server, "fleet")).status == 200
        refused = await ask(server, "bob")
        assert (refused.status, refused.error["code"]) == (401, "BAD_TOKEN")
        assert (await server.ask(CHAT, chat_body())).status == 401


async def test_without_token_only_shown_secrets_are_checked() -> None:
    async with v1_server() as server:
        keep(server, spec("alice"), token=None)
        assert (await server.ask(CHAT, chat_body())).status == 200
        assert (await ask(server, "alice")).status == 200
        assert (await ask(server, "bob")).status == 401
        keep(server, token=None)
        assert (await ask(server, "bob")).status == 200


async def test_expired_key_is_told_when_it_ended() -> None:
    async with v1_server() as server:
        ended = datetime.now(UTC) - timedelta(seconds=1)
        keep(server, spec("alice", expires=ended))
        refused = await ask(server, "alice", "/v1/messages", chat_body(max_tokens=3))
        assert (refused.status, refused.json["error"]["type"]) == (401, "authentication_error")
        assert f"expired at {ended.isoformat(timespec='seconds')}" in refused.json["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/v2/nodes", "/v2/pools/p/drain", "/v2/reload", "/v2/live", "/v2/sessions", "/metrics"]
)
async def test_operators_paths_are_not_for_keys(path: str) -> None:
    async with v1_server() as server:
        keep(server, spec("alice"))
        refused = await ask(server, "alice", path, method="GET")
        assert (refused.status, refused.json["code"]) == (403, "KEY_FORBIDDEN")


async def test_endpoint_and_model_of_others_are_forbidden() -> None:
    async with v1_server() as server:
        keep(server, spec("alice", endpoints=("messages",), models=("tin*",)))
        refused = await ask(server, "alice")
        assert (refused.status, refused.error["type"]) == (403, "permission_error")
        body = {**chat_body(max_tokens=3), "model": "p"}
        other = await ask(server, "alice", "/v1/messages", body)
        assert (other.status, other.json["error"]["details"]["error_code"]) == (403, "KEY_FORBIDDEN")
        assert (await ask(server, "alice", "/v1/messages", {**body, "model": "tiny"})).status == 200
        named = [item["id"] for item in (await ask(server, "alice", "/v1/models", method="GET")).json["data"]]
        assert named == ["hf:org/repo/tiny.gguf"]
        assert (await ask(server, "alice", "/v1/models/p", method="GET")).status == 404


async def test_task_without_model_needs_default() -> None:
    async with v1_server() as server:
        keep(server, spec("alice", models=("tiny",)))
        refused = await ask(
            server, "alice", "/v2/tasks", {"prompt": "x", "placement": {"mode": "pin", "pin_pool_id": "p"}}
        )
        assert (refused.status, refused.json["fields"][0]["field"]) == (403, "model")


async def test_batch_key_gets_batch_unless_it_asks_for_more() -> None:
    async with v1_server() as server:
        keep(server, spec("alice", priority="batch"))
        assert (await ask(server, "alice")).status == 200
        assert next(server.queen.book.newest_first()).request.priority == "batch"
        refused = await ask(server, "alice", x_priority="interactive")
        assert (refused.status, refused.error["param"]) == (403, "X-Priority")


async def test_retry_at_its_time_is_admitted(autojump_clock: trio.testing.MockClock) -> None:
    async with v1_server() as server:
        keep(server, spec("alice", requests_per_minute=2))
        assert [(await ask(server, "alice")).status for _ in range(2)] == [200, 200]
        refused = await ask(server, "alice")
        assert (refused.status, refused.error["code"]) == (429, "RATE_LIMITED")
        assert int(refused.headers["retry-after"]) == 30
        assert refused.headers["x-should-retry"] == "true"
        await trio.sleep(int(refused.headers["retry-after-ms"]) / 1000)
        assert (await ask(server, "alice")).status == 200


async def test_concurrency_counts_until_tasks_end() -> None:
    async with v1_server() as server:
        keep(server, spec("alice", concurrency=1), spec("bob"))
        server.queen.pool(slots=1, models_available=["hf:org/repo/tiny.gguf"])
        waiting = await ask(server, "alice", "/v2/tasks", {"prompt": "x"})
        assert waiting.status == 202
        refused = await ask(server, "alice")
        assert (refused.status, refused.headers["retry-after"].isdigit()) == (429, True)
        assert (await ask(server, "bob")).status == 200
        task = waiting.json["task_id"]
        await ask(server, "alice", f"/v2/tasks/{task}/cancel", b"")
        assert (await ask(server, "alice")).status == 200
        usage = (await ask(server, "alice", "/v2/usage", method="GET")).json["keys"]
        assert [(each["key"], each["refused"], each["waiting_or_running"]) for each in usage] == [("alice", 1, 0)]


async def test_spent_budget_is_not_retried() -> None:
    async with v1_server() as server:
        keep(server, spec("alice", tokens_total=1))
        assert (await ask(server, "alice")).status == 200
        refused = await ask(server, "alice", "/v1/messages", chat_body(max_tokens=3, model="tiny"))
        assert (refused.status, refused.json["error"]["type"]) == (429, "rate_limit_error")
        assert refused.json["error"]["details"]["error_code"] == "BUDGET_EXHAUSTED"
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers


async def test_key_sees_its_own_tasks_only() -> None:
    async with v1_server() as server:
        keep(server, spec("alice"), spec("bob"))
        task = (await ask(server, "alice", "/v2/tasks", {"prompt": "x"})).json["task_id"]
        for name, status in (("alice", 200), ("bob", 404), ("fleet", 200)):
            assert (await ask(server, name, f"/v2/tasks/{task}", method="GET")).status == status
            listed = (await ask(server, name, "/v2/tasks", method="GET")).json
            assert (task in json.dumps(listed)) == (status == 200)
        assert (await ask(server, "bob", f"/v2/tasks/{task}/cancel", b"")).status == 404
        assert (await ask(server, "bob", f"/v2/tasks/{task}/events", method="GET")).status == 404
        assert (await ask(server, "bob", "/v2/tasks", {"prompt": "x", "task_id": task})).status == 409


async def test_request_does_not_inherit_key_of_its_connection() -> None:
    async with v1_server() as server:
        keep(server, spec("alice"), spec("bob"))
        for name, seen in (("alice", 1), ("fleet", 2), ("bob", 1)):
            secret = FLEET if name == "fleet" else SECRETS[name]
            exchange = V1Exchange(b"")
            # in this task, as the requests of one connection are
            await server._exchange(exchange, "GET", "/v2/usage", {"authorization": f"Bearer {secret}"})
            assert len(exchange.json["keys"]) == seen


async def test_same_session_id_of_two_keys_is_two_sessions() -> None:
    async with v1_server() as server:
        keep(server, spec("alice"), spec("bob"))
        session = str(uuid4())
        for name in ("alice", "bob", "alice", "fleet"):
            assert (await ask(server, name, x_session_id=session)).status == 200
        assert len(server.queen.sessions) == 3


async def test_usage_counts_tokens_of_each_key() -> None:
    async with v1_server() as server:
        keep(server, spec("alice"), spec("bob"))
        await ask(server, "alice")
        by_name = {each["key"]: each for each in (await ask(server, "fleet", "/v2/usage", method="GET")).json["keys"]}
        assert by_name["alice"]["requests"] == 1
        assert by_name["alice"]["tokens_out"] > 0
        assert by_name["bob"]["requests"] == 0
        read = server.queen.metrics.registry.get_sample_value
        assert read("orchd_key_requests_total", {"key": "alice"}) == 1
        assert read("orchd_key_tokens_out_total", {"key": "alice"}) == by_name["alice"]["tokens_out"]


def test_replaced_keys_keep_their_counts() -> None:
    keys = Keyring()
    assert keys.replace([spec("alice"), spec("bob")]) == ["keys added: alice, bob"]
    (first, _second) = keys.accounts()
    charge = first.charge(40, 100)
    charge.open(0.0)
    assert keys.replace([spec("alice", weight=2)]) == ["keys removed: bob", "keys changed: alice"]
    charge.end(10, 20, 1.0, started=True)
    charge.end(10, 20, 1.0, started=True)
    (usage,) = keys.usage()
    assert (usage.tokens_in, usage.tokens_out, usage.weight, usage.waiting_or_running) == (10, 20, 2, 0)
    assert keys.replace([]) == ["keys removed: alice"]
    assert not keys


def test_accounts_of_removed_keys_are_bounded() -> None:
    keys = Keyring()
    for number in range(3):
        keys.replace([spec(f"{number}-{each}") for each in range(MAX_FORMER)])
    assert len(keys.totals()) <= 2 * MAX_FORMER


@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=10), min_size=1, max_size=4))
def test_only_star_is_special_in_models(name: str, models: Sequence[str]) -> None:
    def matches(pattern: str, text: str) -> bool:
        first, star, rest = pattern.partition("*")
        if not star:
            return text == pattern
        return text.startswith(first) and any(matches(rest, text[begin:]) for begin in range(len(first), len(text) + 1))

    names = {name or "default", model_key(name or "default")}
    expected = any(matches(each, text) for each in models for text in names)
    assert permits_model(spec("alice", models=tuple(models)), name) == expected


@pytest.mark.parametrize("path", ["/v1/messages/", "/v2/tasksx", "/v2/task", "/v2/Tasks", "/v1/chat", "//v1/models"])
def test_paths_that_only_look_alike_are_no_endpoints(path: str) -> None:
    assert endpoint_of("POST", path) is None
    assert not open_to_every_key("POST", path)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True), st.dictionaries(st.text(), st.text()))
def test_owner_is_stored_with_request(name: str, request: dict[str, str]) -> None:
    text = json.dumps(request, separators=(",", ":"))
    assert owner_of(with_owner(text, name)) == (name, text)
    assert owner_of(with_owner(text, None)) == owner_of(text)


async def test_stored_task_belongs_to_its_key_after_restart() -> None:
    async with v1_server() as server:
        keep(server, spec("alice"), spec("bob"))
        task = (await ask(server, "alice", "/v2/tasks", {"prompt": "x"})).json["task_id"]
        stored = stored_task(next(server.queen.book.newest_first()))
    async with v1_server() as server:
        keep(server, spec("alice"), spec("bob"))
        await server.queen.store.accept(stored)
        await restore(server.queen.store, server.queen.intake, server.queen.book, server.queen.accounting)
        for name, status in (("alice", 200), ("bob", 404)):
            assert (await ask(server, name, f"/v2/tasks/{task}", method="GET")).status == status


@pytest.mark.parametrize("policy", ["drop-lru", "reject-new"])
async def test_thousand_tasks_do_not_delay_first_of_another(policy: str) -> None:
    async with v1_server(capacity=50, policy=policy) as server:
        keep(server, spec("alice"), spec("bob"))
        server.queen.pool(slots=0, models_available=["hf:org/repo/tiny.gguf"])
        statuses = [(await ask(server, "alice", "/v2/tasks", {"prompt": "x"})).status for _ in range(60)]
        assert statuses[0] == 202
        assert (await ask(server, "fleet", "/v2/tasks", {"prompt": "x"})).status == 202
        accepted = await ask(server, "bob", "/v2/tasks", {"prompt": "x"})
        assert (accepted.status, accepted.json["queue_position"] <= 2) == (202, True)
        first = [str(task.owner) for _, task in zip(range(3), server.queen.queue.order(), strict=False)]
        assert sorted(first) == ["None", "alice", "bob"]

"""orchctl run and serve: known models at once, others after a pool was added and loaded; failures with reason."""

from pathlib import Path

import pytest

from orchctl.commands import operations
from orchctl.machine import run as module
from orchctl.provisioner import HANDOFF_VARIABLE as VARIABLE
from tests.unit.orchctl.cluster import OPERATION, POOL
from tests.unit.orchctl.machine.test_pool import DRAFT, configured, drafted, listed, machine
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import CHAT, MODELS, chat, reply, serve

UNLOADED = {**POOL, "node_id": None, "pool_id": "a", "state": "unloaded", "ready": False, "slots_free": 0}
READY = {**UNLOADED, "state": "ready", "ready": True, "slots_free": 4}
PRELOAD = "POST /v2/pools/a/preload"
DONE = {**OPERATION, "kind": "load", "state": "done", "pool_id": "a", "node_id": None}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_S", 0.0)
    monkeypatch.setattr(operations, "POLL_S", 0.0)


def pools(*found: dict[str, object]) -> bytes:
    return reply(200, {"pools": [*found], "count": len(found)})


@pytest.mark.parametrize("name", ["a", "tiny"])
def test_known_pool_or_model_is_asked_at_once(name: str) -> None:
    answers = {"GET /v2/pools": [pools(UNLOADED)], "GET /v1/models": [reply(200, MODELS)], CHAT: [chat("Hi", "!")]}
    with serve(answers) as queen:
        result = run("run", name, "hello", "--max-tokens", "5", "--url", queen.url)
        [body] = queen.bodies(CHAT)
    assert (result.status, result.out) == (0, "Hi!\n")
    assert (body["model"], body["max_tokens"], body["messages"][0]["content"]) == ("tiny", 5, "hello")


def test_new_model_is_added_loaded_and_asked(tmp_path: Path) -> None:
    path = tmp_path / "pools.d/a.toml"
    found = listed(configured(path, state="provisioning", detail="model: 40 %"))
    answers = {
        "GET /v2/pools": [pools(), pools(UNLOADED), pools(READY)],
        PRELOAD: [reply(202, DONE)],
        CHAT: [chat("Hi")],
    }
    with serve(answers) as queen, machine(tmp_path, draft=drafted(path), listed=found) as daemon:
        given = {VARIABLE: str(tmp_path / "engines")}
        result = run("run", "https://h/a.gguf", "hello", "--url", queen.url, **given)
        assert daemon.bodies(DRAFT) == [{"model": "https://h/a.gguf", "keys": {"preload": False}}]
        assert len(queen.requests_for(PRELOAD)) == 1
    assert (result.status, result.out) == (0, "Hi\n"), result.err
    assert path.exists()


def test_serve_prints_url_model_and_curl(tmp_path: Path) -> None:
    path = tmp_path / "pools.d/a.toml"
    answers = {"GET /v2/pools": [pools(READY)]}
    with serve(answers) as queen, machine(tmp_path, draft=drafted(path, None)):
        result = run("serve", "https://h/a.gguf", "--url", queen.url, **{VARIABLE: str(tmp_path / "engines")})
        assert f"model tiny is served at {queen.url}/v1 by pool a\ncurl {queen.url}/v1/chat/completions" in result.out


def test_failed_pool_ends_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "pools.d/a.toml"
    found = listed(configured(path, state="failed", last_error="the server answers 404"))
    with serve({"GET /v2/pools": [pools()]}) as queen, machine(tmp_path, draft=drafted(path), listed=found):
        result = run("run", "https://h/a.gguf", "hello", "--url", queen.url, **{VARIABLE: str(tmp_path / "engines")})
    assert result.status == 69
    assert "pool a failed: the server answers 404" in result.err
    assert "orchctl pool rm a" in result.err


def test_unknown_name_lists_what_is_known() -> None:
    with serve({"GET /v2/pools": [pools(READY)], "GET /v1/models": [reply(200, MODELS)]}) as queen:
        result = run("run", "other", "hello", "--url", queen.url)
    assert result.status == 66
    assert "other is no pool and no model here" in result.err
    assert "a, tiny" in result.err

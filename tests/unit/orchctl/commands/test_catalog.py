"""orchctl models and catalog."""

import hashlib
import json
from pathlib import Path

import pytest

from llama_orch.contracts.catalog import NewModel
from orchctl.commands import verification
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import MODELS, error, reply, serve

DIGEST = "sha256:" + "a1" * 32
ONE = "/v2/catalog/models/llama"
MODEL: dict[str, object] = {
    "id": "llama",
    "model_ref": "llama.gguf",
    "digest": DIGEST,
    "cost_per_1k_tokens": 0.25,
    "metadata": {"license": "MIT"},
    "state": "Active",
    "created_at": "2026-11-25T00:00:00Z",
    "updated_at": "2026-11-25T00:00:00Z",
    "verification": {"state": "verified", "checked_at": "2026-11-25T00:00:00Z", "reason": None, "actual": None},
}
RETIRED = {**MODEL, "id": "plain", "digest": None, "state": "Retired", "verification": {"state": "unverified"}}


def checked(state: str, reason: str | None = None) -> bytes:
    return reply(200, {**MODEL, "verification": {"state": state, "reason": reason}})


def test_models_show_whether_they_are_ready() -> None:
    with serve({"GET /v1/models": [reply(200, MODELS)]}) as queen:
        result, as_json = run("models", "--url", queen.url), run("models", "--json", "--url", queen.url)
    assert [line.split() for line in result.out.splitlines()] == [
        ["MODEL", "READY", "POOLS", "CONTEXT"],
        ["slow", "no", "default", "4096"],
        ["tiny", "yes", "default", "4096"],
    ]
    assert json.loads(as_json.out) == MODELS


def test_no_models_names_pools_command() -> None:
    with serve({"GET /v1/models": [reply(200, {"object": "list", "data": []})]}) as queen:
        assert "orchctl pools" in run("models", "--url", queen.url).out


@pytest.mark.parametrize("words", [(), ("list",)])
def test_catalog_is_listed(words: tuple[str, ...]) -> None:
    document = {"models": [MODEL, RETIRED], "count": 2}
    with serve({"GET /v2/catalog/models": [reply(200, document)]}) as queen:
        result = run("catalog", *words, "--url", queen.url)
        as_json = run("catalog", "--json", "--url", queen.url, *words)
    assert [line.split() for line in result.out.splitlines()] == [
        ["MODEL", "STATE", "DIGEST", "COST", "SERVED", "AS"],
        ["llama", "Active", "verified", "0.25", "llama.gguf"],
        ["plain", "Retired", "none", "0.25", "llama.gguf"],
    ]
    assert json.loads(as_json.out) == document


def test_add_sends_only_given_fields() -> None:
    with serve({"POST /v2/catalog/models": [reply(201, MODEL)]}) as queen:
        result = run("catalog", "add", "llama", "llama.gguf", "--url", queen.url)
        words = ("--digest", DIGEST, "--cost", "0.25", "--metadata", "license=MIT", "--metadata", "a=b=c")
        run("catalog", "add", "llama", "llama.gguf", *words, "--url", queen.url)
        minimal, complete = queen.bodies("POST /v2/catalog/models")
    assert result.status == 0
    assert "license" in result.out
    assert minimal == {"id": "llama", "model_ref": "llama.gguf"}
    assert complete == {
        **minimal,
        "digest": DIGEST,
        "cost_per_1k_tokens": 0.25,
        "metadata": {"license": "MIT", "a": "b=c"},
    }
    assert set(complete) == set(NewModel.model_fields)


def test_digest_of_local_file_is_sent(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "m.gguf").write_bytes(data)
    with serve({"POST /v2/catalog/models": [reply(201, MODEL)]}) as queen:
        run("catalog", "add", "llama", "m", "--digest-of", str(tmp_path / "m.gguf"), "--url", queen.url)
        (body,) = queen.bodies("POST /v2/catalog/models")
    assert body["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("name", ["missing", ".", "file/below", "odd\0name", "x" * 300])
def test_unreadable_file_exits_66_and_adds_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with serve({}) as queen:
        result = run("catalog", "add", "llama", "m", "--digest-of", str(tmp_path / name), "--url", queen.url)
        assert not queen.requests
    assert result.status == 66
    assert result.err.startswith("orchctl: ")


@pytest.mark.parametrize(
    ("command", "line", "sent"),
    [
        ("show", f"GET {ONE}", None),
        ("retire", f"POST {ONE}/state", {"state": "Retired"}),
        ("activate", f"POST {ONE}/state", {"state": "Active"}),
        ("verify", f"POST {ONE}/verify", None),
    ],
)
def test_changed_model_is_shown(command: str, line: str, sent: object) -> None:
    with serve({line: [reply(202, MODEL)]}) as queen:
        result = run("catalog", command, "llama", "--url", queen.url)
        as_json = run("catalog", command, "llama", "--json", "--url", queen.url)
        assert [json.loads(request.body or b"null") for request in queen.requests_for(line)] == [sent, sent]
    assert result.status == 0
    assert dict(text.split(maxsplit=1) for text in result.out.splitlines())["verification.state"] == "verified"
    assert json.loads(as_json.out) == MODEL


def test_remove_prints_nothing_and_unknown_model_exits_66() -> None:
    script = {f"DELETE {ONE}": [reply(204)], "DELETE /v2/catalog/models/a%2Fb": [error(404, "NOT_FOUND", "no")]}
    with serve(script) as queen:
        result, unknown = (run("catalog", "remove", name, "--url", queen.url) for name in ("llama", "a/b"))
    assert (result.status, result.out, result.err) == (0, "", "")
    assert unknown.status == 66


@pytest.mark.parametrize("words", [("verify", "llama"), ("add", "llama", "m", "--digest", DIGEST)])
@pytest.mark.parametrize(
    ("state", "status", "reason"),
    [
        ("verified", 0, None),
        ("mismatch", 65, "the file has sha256:b2"),
        ("unverified", 65, "no digest was given"),
        ("unavailable", 69, "no pool has it"),
    ],
)
def test_wait_exits_with_result_of_verification(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], state: str, status: int, reason: str | None
) -> None:
    monkeypatch.setattr(verification, "POLL_S", 0.0)
    script = {
        f"POST {ONE}/verify": [checked("pending")],
        "POST /v2/catalog/models": [checked("pending")],
        f"GET {ONE}": [checked("pending"), checked("pending"), checked(state, reason)],
    }
    with serve(script) as queen:
        result = run("catalog", *words, "--wait", "--url", queen.url)
        assert len(queen.requests_for(f"GET {ONE}")) == 3
    assert result.status == status
    assert dict(line.split(maxsplit=1) for line in result.out.splitlines())["verification.state"] == state
    assert (reason or "") in result.err


def test_without_wait_mismatch_exits_0() -> None:
    with serve({f"POST {ONE}/verify": [checked("mismatch")]}) as queen:
        assert run("catalog", "verify", "llama", "--url", queen.url).status == 0


def test_availability_has_a_row_per_node() -> None:
    node = {"node_id": "local", "address": "127.0.0.1", "online": True, "models": ["a", "b"], "pools": []}
    document = {"nodes": {"local": node}, "total_models": 2, "replicated_models": 0, "single_node_models": 2}
    with serve({"GET /v2/catalog/availability": [reply(200, document)]}) as queen:
        result = run("catalog", "availability", "--url", queen.url)
        as_json = run("catalog", "availability", "--json", "--url", queen.url)
    assert result.out == "NODE   ONLINE  POOLS  MODELS\nlocal  yes     -      a, b\n"
    assert json.loads(as_json.out) == document


@pytest.mark.parametrize(
    "words",
    [
        ("fly",),
        ("show",),
        ("add", "llama"),
        ("add", "a", "b", "--digest", DIGEST, "--digest-of", "f"),
        ("add", "a", "b", "--metadata", "x"),
        ("add", "a", "b", "--metadata", "=x"),
        ("add", "a", "b", "--cost", "nan"),
    ],
)
def test_wrong_command_line_exits_64(words: tuple[str, ...]) -> None:
    result = run("catalog", *words)
    assert result.status == 64
    assert result.err.startswith("usage: orchctl catalog")

"""orchctl models and catalog."""

import hashlib
import json
from pathlib import Path

import pytest

from llama_orch.contracts.catalog import NewModel
from orchctl.commands import catalog as verification
from tests.unit.orchctl.running import here
from tests.unit.orchctl.scripted_queen import MODELS, error, queen, reply

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
PLAIN = {**MODEL, "id": "plain", "digest": None, "state": "Retired", "verification": {"state": "unverified"}}


def checked(state: str, reason: str | None = None) -> bytes:
    return reply(200, {**MODEL, "verification": {"state": state, "reason": reason}})


def test_models_are_what_clients_may_ask_for_and_whether_it_is_ready() -> None:
    with queen({"GET /v1/models": [reply(200, MODELS)]}) as her:
        ended, as_json = here("models", "--url", her.url), here("models", "--json", "--url", her.url)
    assert [line.split() for line in ended.out.splitlines()] == [
        ["MODEL", "READY", "POOLS", "CONTEXT"],
        ["slow", "no", "default", "4096"],
        ["tiny", "yes", "default", "4096"],
    ]
    assert json.loads(as_json.out) == MODELS


def test_no_models_says_where_to_look() -> None:
    with queen({"GET /v1/models": [reply(200, {"object": "list", "data": []})]}) as her:
        assert "orchctl pools" in here("models", "--url", her.url).out


@pytest.mark.parametrize("words", [(), ("list",)])
def test_the_catalog_is_listed(words: tuple[str, ...]) -> None:
    document = {"models": [MODEL, PLAIN], "count": 2}
    with queen({"GET /v2/catalog/models": [reply(200, document)]}) as her:
        ended = here("catalog", *words, "--url", her.url)
        as_json = here("catalog", "--json", "--url", her.url, *words)
    assert [line.split() for line in ended.out.splitlines()] == [
        ["MODEL", "STATE", "DIGEST", "COST", "SERVED", "AS"],
        ["llama", "Active", "verified", "0.25", "llama.gguf"],
        ["plain", "Retired", "none", "0.25", "llama.gguf"],
    ]
    assert json.loads(as_json.out) == document


def test_add_sends_what_is_given_and_nothing_else() -> None:
    with queen({"POST /v2/catalog/models": [reply(201, MODEL)]}) as her:
        ended = here("catalog", "add", "llama", "llama.gguf", "--url", her.url)
        words = ("--digest", DIGEST, "--cost", "0.25", "--metadata", "license=MIT", "--metadata", "a=b=c")
        here("catalog", "add", "llama", "llama.gguf", *words, "--url", her.url)
        least, most = her.bodies("POST /v2/catalog/models")
    assert ended.status == 0
    assert "license" in ended.out
    assert least == {"id": "llama", "model_ref": "llama.gguf"}
    assert most == {**least, "digest": DIGEST, "cost_per_1k_tokens": 0.25, "metadata": {"license": "MIT", "a": "b=c"}}
    assert set(most) == set(NewModel.model_fields)


def test_the_digest_of_a_file_is_made_here(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "m.gguf").write_bytes(data)
    with queen({"POST /v2/catalog/models": [reply(201, MODEL)]}) as her:
        here("catalog", "add", "llama", "m", "--digest-of", str(tmp_path / "m.gguf"), "--url", her.url)
        (body,) = her.bodies("POST /v2/catalog/models")
    assert body["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize("name", ["missing", ".", "file/below", "odd\0name", "x" * 300])
def test_a_file_that_cannot_be_read_is_66_and_adds_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with queen({}) as her:
        ended = here("catalog", "add", "llama", "m", "--digest-of", str(tmp_path / name), "--url", her.url)
        assert not her.asked
    assert ended.status == 66
    assert ended.err.startswith("orchctl: ")


@pytest.mark.parametrize(
    ("command", "line", "sent"),
    [
        ("show", f"GET {ONE}", None),
        ("retire", f"POST {ONE}/state", {"state": "Retired"}),
        ("activate", f"POST {ONE}/state", {"state": "Active"}),
        ("verify", f"POST {ONE}/verify", None),
    ],
)
def test_one_model_is_shown_as_it_is_afterwards(command: str, line: str, sent: object) -> None:
    with queen({line: [reply(202, MODEL)]}) as her:
        ended = here("catalog", command, "llama", "--url", her.url)
        as_json = here("catalog", command, "llama", "--json", "--url", her.url)
        assert [json.loads(request.body or b"null") for request in her.of(line)] == [sent, sent]
    assert ended.status == 0
    assert dict(text.split(maxsplit=1) for text in ended.out.splitlines())["verification.state"] == "verified"
    assert json.loads(as_json.out) == MODEL


def test_remove_is_silent_and_an_unknown_model_is_66() -> None:
    script = {f"DELETE {ONE}": [reply(204)], "DELETE /v2/catalog/models/a%2Fb": [error(404, "NOT_FOUND", "no")]}
    with queen(script) as her:
        ended, unknown = (here("catalog", "remove", name, "--url", her.url) for name in ("llama", "a/b"))
    assert (ended.status, ended.out, ended.err) == (0, "", "")
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
def test_wait_ends_with_how_the_check_ended(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], state: str, status: int, reason: str | None
) -> None:
    monkeypatch.setattr(verification, "POLL_S", 0.0)
    script = {
        f"POST {ONE}/verify": [checked("pending")],
        "POST /v2/catalog/models": [checked("pending")],
        f"GET {ONE}": [checked("pending"), checked("pending"), checked(state, reason)],
    }
    with queen(script) as her:
        ended = here("catalog", *words, "--wait", "--url", her.url)
        assert len(her.of(f"GET {ONE}")) == 3
    assert ended.status == status
    assert dict(line.split(maxsplit=1) for line in ended.out.splitlines())["verification.state"] == state
    assert (reason or "") in ended.err


def test_without_wait_a_wrong_digest_is_only_shown() -> None:
    with queen({f"POST {ONE}/verify": [checked("mismatch")]}) as her:
        assert here("catalog", "verify", "llama", "--url", her.url).status == 0


def test_availability_is_a_line_a_node() -> None:
    node = {"node_id": "local", "address": "127.0.0.1", "online": True, "models": ["a", "b"], "pools": []}
    document = {"nodes": {"local": node}, "total_models": 2, "replicated_models": 0, "single_node_models": 2}
    with queen({"GET /v2/catalog/availability": [reply(200, document)]}) as her:
        ended = here("catalog", "availability", "--url", her.url)
        as_json = here("catalog", "availability", "--json", "--url", her.url)
    assert ended.out == "NODE   ONLINE  POOLS  MODELS\nlocal  yes     -      a, b\n"
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
def test_a_wrong_command_line_is_64(words: tuple[str, ...]) -> None:
    ended = here("catalog", *words)
    assert ended.status == 64
    assert ended.err.startswith("usage: orchctl catalog")

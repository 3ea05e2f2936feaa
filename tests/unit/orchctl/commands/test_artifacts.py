"""orchctl artifacts."""

import json
from pathlib import Path

import pytest

from llama_orch.contracts.artifacts import NewArtifact
from tests.unit.orchctl.running import run
from tests.unit.orchctl.scripted_queen import error, reply, serve

ID = "c3" * 32
HEAD = {
    "id": ID,
    "kind": "task",
    "tags": ["a", "b"],
    "parent": None,
    "created_at": "2020-01-01T00:00:00Z",
    "size_bytes": 321,
}
ARTIFACT = {**HEAD, "content": {"tokens": [1, 2], "text": "é"}}
LISTED = {"artifacts": [HEAD], "count": 1, "next": None}
POST = "POST /v2/artifacts"


@pytest.mark.parametrize("before", [True, False])
def test_artifacts_are_listed_by_kind_and_tag(before: bool) -> None:
    words = ("--kind", "task", "--tag", "a", "--limit", "5")
    with serve({"GET /v2/artifacts?limit=5&kind=task&tag=a": [reply(200, LISTED)]}) as queen:
        where = (*words, "list") if before else ("list", *words)
        result = run("artifacts", *where, "--url", queen.url)
        assert result == run("artifacts", *words, "--url", queen.url)
        as_json = run("artifacts", "--json", "--url", queen.url, *where)
    header, line = result.out.splitlines()
    assert header.split() == ["ARTIFACT", "KIND", "AGE", "BYTES", "TAGS"]
    assert line.split()[:2] + line.split()[-3:] == [ID, "task", "321", "a,", "b"]
    assert json.loads(as_json.out) == LISTED


def test_artifact_is_shown_with_content() -> None:
    with serve({f"GET /v2/artifacts/{ID}": [reply(200, ARTIFACT)]}) as queen:
        result = run("artifacts", "show", ID, "--url", queen.url)
        as_json = run("artifacts", "show", ID, "--json", "--url", queen.url)
    head, _, content = result.out.partition("\n\n")
    assert "content" not in head
    assert json.loads(content) == ARTIFACT["content"]
    assert "é" in content
    assert json.loads(as_json.out) == ARTIFACT


def test_put_prints_id_of_artifact(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"a": [1, null, "é"]}')
    with serve({POST: [reply(201, HEAD)]}) as queen:
        result = run("artifacts", "put", str(tmp_path / "f.json"), "--url", queen.url)
        words = ("--kind", "note", "--tag", "x", "--tag", "y", "--parent", ID)
        as_json = run("artifacts", "put", "-", *words, "--json", "--url", queen.url, stdin="null")
        minimal, complete = queen.bodies(POST)
    assert (result.status, result.out, result.err) == (0, f"{ID}\n", "")
    assert json.loads(as_json.out) == HEAD
    assert minimal == {"kind": "document", "content": {"a": [1, None, "é"]}}
    assert complete == {"kind": "note", "content": None, "tags": ["x", "y"], "parent": ID}
    assert set(complete) == set(NewArtifact.model_fields)


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"{", 65, "line 1 column 2"),
        (b"", 65, "not valid JSON"),
        (b"[NaN]", 65, "cannot represent NaN"),
        (b"[1e999]", 65, "1e999"),
        (b"\xff\xfe", 65, "byte 0 is not valid UTF-8"),
        (b"[" * 100_000, 65, "not valid JSON"),
        (None, 66, "No such file"),
    ],
)
def test_put_refuses_invalid_json(tmp_path: Path, data: bytes | None, status: int, words: str) -> None:
    if data is not None:
        (tmp_path / "f").write_bytes(data)
    with serve({}) as queen:
        result = run("artifacts", "put", str(tmp_path / "f"), "--url", queen.url)
        assert not queen.requests
    assert (result.status, result.out) == (status, "")
    assert words in result.err


def test_invalid_json_on_stdin_is_named() -> None:
    assert "standard input is not valid JSON" in run("artifacts", "put", "-", stdin="{").err


def test_unknown_artifact_exits_66_and_empty_list_is_said() -> None:
    empty = {"artifacts": [], "count": 0}
    script = {"GET /v2/artifacts/x": [error(404, "NOT_FOUND", "no")], "GET /v2/artifacts": [reply(200, empty)]}
    with serve(script) as queen:
        assert run("artifacts", "show", "x", "--url", queen.url).status == 66
        assert run("artifacts", "--url", queen.url).out == "there are no matching artifacts\n"

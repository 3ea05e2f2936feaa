"""Artifacts over HTTP: added, read and listed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from llama_orch.contracts.artifacts import Artifact
from queen_rbee.tasks.artifacts import LIMIT_BYTES
from tests.unit.queen_rbee.api_client import FULL, ApiClient, api_client

PATH = "/v2/artifacts"
NOTE = {"kind": "note", "tags": ["x"], "content": {"b": [1.0, None], "a": "é"}}


def identifier(document: Mapping[str, object]) -> str:
    """Compute an artifact's id as a client does."""
    whole = {"tags": [], "parent": None, "content": None, **document}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


async def add_artifacts(served: ApiClient, count: int, **fields: object) -> list[str]:
    """Add `count` artifacts and return their ids."""
    answers = [await served.ask("POST", PATH, {"kind": "note", "content": n, **fields}) for n in range(count)]
    assert all(answer.status == 201 for answer in answers)
    return [answer.json["id"] for answer in answers]


async def test_artifact_has_the_id_a_client_computes(tmp_path: Path):
    served = api_client(tmp_path)
    added = await served.ask("POST", PATH, NOTE)
    assert (added.status, added.json["id"]) == (201, identifier(NOTE))
    assert "content" not in added.json
    shown = await served.ask("GET", f"{PATH}/{added.json['id']}")
    assert (shown.status, shown.json) == (200, {**added.json, "content": NOTE["content"]})
    assert set(shown.json) == set(Artifact.model_fields)
    assert shown.headers["content-type"] == "application/json"


async def test_same_document_again_is_200_with_same_artifact(tmp_path: Path):
    served = api_client(tmp_path)
    added = await served.ask("POST", PATH, NOTE)
    raw = b' {"content":{"a":"\\u00e9","b":[1.0,null]},\n"tags":["x"],"kind":"note","parent":null}'
    again = await served.ask("POST", PATH, raw=raw)
    assert (again.status, again.json) == (200, added.json)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["kind"]),
        ({"kind": "Note"}, ["kind"]),
        ({"kind": "note", "tags": [""]}, ["tags.0"]),
        ({"kind": "note", "tags": ["x"] * 33}, ["tags"]),
        ({"kind": "note", "parent": "abc", "title": ""}, ["parent", "title"]),
        ({"kind": "note", "parent": "0" * 64}, ["parent"]),
    ],
)
async def test_wrong_fields_are_named(body: object, fields: list[str], tmp_path: Path):
    assert (await api_client(tmp_path).ask("POST", PATH, body)).fields == fields


@pytest.mark.parametrize(
    "content", [b"NaN", b"[1e999]", b'"\\ud800"', b"1" * 5000, b"[" * 5000 + b"]" * 5000], ids=lambda raw: raw[:8]
)
async def test_content_that_cannot_be_hashed_is_400(content: bytes, tmp_path: Path):
    answer = await api_client(tmp_path).ask("POST", PATH, raw=b'{"kind":"note","content":%s}' % content)
    assert (answer.status, answer.json["code"]) == (400, "INVALID_PARAMS")


@pytest.mark.parametrize(
    "raw", [b" " * LIMIT_BYTES + b'{"kind":"note"}', b'{"kind":"note","content":[%s1]}' % (b"1e9," * 95_000)]
)
async def test_too_long_document_is_413(raw: bytes, tmp_path: Path):
    answer = await api_client(tmp_path).ask("POST", PATH, raw=raw)
    assert (answer.status, answer.json["code"]) == (413, "INVALID_PARAMS")
    assert str(LIMIT_BYTES) in answer.json["message"]


@pytest.mark.parametrize("path", ["0" * 64, "A" * 64, "abc", "%00"])
async def test_unknown_artifact_is_404(path: str, tmp_path: Path):
    answer = await api_client(tmp_path).ask("GET", f"{PATH}/{path}")
    assert (answer.status, answer.json["code"]) == (404, "NOT_FOUND")
    assert "64 hex digits" in answer.json["hint"]


async def test_pages_go_from_newest_to_oldest(tmp_path: Path):
    served = api_client(tmp_path)
    ids = await add_artifacts(served, 5)
    found, query = [], "limit=2"
    while True:
        page = (await served.ask("GET", f"{PATH}?{query}")).json
        assert page["count"] == len(page["artifacts"]) <= 2
        found += [head["id"] for head in page["artifacts"]]
        if page["next"] is None:
            break
        query = f"limit=2&before={page['next']}"
    assert found == ids[::-1]


async def test_listing_filters_by_kind_and_tag(tmp_path: Path):
    served = api_client(tmp_path)
    plain = await add_artifacts(served, 2)
    tagged = await add_artifacts(served, 2, tags=["x", "y"])
    other = await add_artifacts(served, 1, kind="other", tags=["x"])

    async def list_artifacts(query: str) -> list[str]:
        return [head["id"] for head in (await served.ask("GET", f"{PATH}?{query}")).json["artifacts"]]

    assert await list_artifacts("kind=note") == [*tagged[::-1], *plain[::-1]]
    assert await list_artifacts("tag=x") == [*other, *tagged[::-1]]
    assert await list_artifacts("kind=note&tag=x") == tagged[::-1]
    assert await list_artifacts("kind=none") == await list_artifacts("tag=z") == []


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=%C2%B2"])
async def test_invalid_limit_is_named(query: str, tmp_path: Path):
    assert (await api_client(tmp_path).ask("GET", f"{PATH}?{query}")).fields == ["limit"]


@pytest.mark.parametrize("before", ["x", "", "0" * 64])
async def test_unknown_before_is_refused(before: str, tmp_path: Path):
    assert (await api_client(tmp_path).ask("GET", f"{PATH}?before={before}")).fields == ["before"]


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("GET", ""), ("GET", "/" + "0" * 64)])
async def test_store_failure_is_503(method: str, path: str, tmp_path: Path):
    served = api_client(tmp_path)
    served.store.failure = FULL
    answer = await served.ask(method, PATH + path, NOTE if method == "POST" else None)
    assert (answer.status, answer.json["code"], answer.json["retriable"]) == (503, "INTERNAL", True)
    assert (answer.json["message"], answer.json["hint"]) == ("the disk is full", "Make room.")
    served.store.failure = None
    assert (await served.ask("GET", PATH)).json == {"artifacts": [], "count": 0, "next": None}


async def test_artifacts_survive_restart(tmp_path: Path):
    served = api_client(tmp_path)
    [found] = await add_artifacts(served, 1)
    before = await served.ask("GET", f"{PATH}/{found}")
    after = api_client(tmp_path, served.store.after_restart())
    assert (await after.ask("GET", f"{PATH}/{found}")).json == before.json

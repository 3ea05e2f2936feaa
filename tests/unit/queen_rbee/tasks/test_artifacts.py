"""Artifacts are identified by content, returned as hashed, and listed in gapless pages."""

import json
from uuid import UUID

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from llama_orch.contracts.artifacts import Artifact, ArtifactHead, NewArtifact
from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.tasks.artifacts import (
    BATCH,
    LIMIT_BYTES,
    MAX_SCANNED,
    Artifacts,
    ArtifactTooLong,
    artifact_id,
    canonical_document,
    canonical_json,
)
from queen_rbee.tasks.task import Task
from tests.unit.queen_rbee.memory_store import MemoryStore


def note(content: object = None, **fields) -> NewArtifact:
    return NewArtifact.model_validate({"kind": "note", "content": content, **fields})


async def all_pages(artifacts: Artifacts, limit: int, **chosen: str | None) -> list[ArtifactHead]:
    """Return the heads of all pages."""
    found: list[ArtifactHead] = []
    before: str | None = None
    while True:
        filters = {"kind": None, "tag": None, **chosen}
        heads, before = await artifacts.listed(**filters, limit=limit, before=before)
        assert len(heads) <= limit
        found += heads
        if before is None:
            return found


async def test_artifact_is_stored_under_the_hash_of_its_json():
    artifacts, new = Artifacts(MemoryStore()), note({"b": [1.0, None], "a": "é\n"}, tags=("x", "y"))
    document = canonical_document(new, canonical_json(new.content))
    head, is_new = await artifacts.add(new)
    assert (is_new, head.id, head.size_bytes) == (True, artifact_id(document), len(document))
    shown = await artifacts.get(head.id)
    assert shown is not None
    found = Artifact.model_validate_json(shown)
    assert (found.kind, found.tags, found.parent, found.content) == ("note", ["x", "y"], None, new.content)
    assert shown.endswith(f',"content":{canonical_json(new.content)}}}')


async def test_equal_documents_are_one_artifact():
    artifacts = Artifacts(MemoryStore())
    first, _new = await artifacts.add(note({"a": 1, "b": 2}))
    again, is_new = await artifacts.add(note({"b": 2, "a": 1}))
    assert (again, is_new) == (first, False)
    assert await all_pages(artifacts, 10) == [first]


async def test_artifacts_survive_a_restart():
    store = MemoryStore()
    head, _new = await Artifacts(store).add(note("hello"))
    after = Artifacts(store.after_restart())
    assert await after.get(head.id) == await Artifacts(store).get(head.id)
    assert await after.add(note("hello")) == (head, False)


async def test_artifact_that_cannot_be_stored_is_not_added():
    store = MemoryStore(failure=StoreFailure("the disk is full"))
    artifacts = Artifacts(store)
    with pytest.raises(StoreFailure):
        await artifacts.add(note("hello"))
    store.failure = None
    assert (await artifacts.add(note("hello")))[1]


async def test_unknown_id_is_none():
    assert await Artifacts(MemoryStore()).get("0" * 64) is None


async def test_unknown_parent_is_refused():
    artifacts = Artifacts(MemoryStore())
    parent, _new = await artifacts.add(note("first"))
    child, _new = await artifacts.add(note("second", parent=parent.id))
    assert child.parent == parent.id
    with pytest.raises(ApiError) as caught:
        await artifacts.add(note("third", parent="0" * 64))
    assert caught.value.status == 400
    assert [problem.field for problem in caught.value.body.fields or ()] == ["parent"]


@pytest.mark.parametrize(
    "content", [float("nan"), [float("inf")], "\ud800", 10**5000], ids=lambda value: type(value).__name__
)
async def test_content_that_json_cannot_express_is_refused(content: JsonValue):
    with pytest.raises(ApiError) as caught:
        await Artifacts(MemoryStore()).add(NewArtifact.model_construct(kind="note", content=content))
    assert caught.value.status == 400
    assert [problem.field for problem in caught.value.body.fields or ()] == ["content"]


async def test_size_limit_applies_to_the_canonical_document():
    artifacts, frame = Artifacts(MemoryStore()), len(canonical_document(note(), '""'))
    head, _new = await artifacts.add(note("x" * (LIMIT_BYTES - frame)))
    assert head.size_bytes == LIMIT_BYTES
    with pytest.raises(ArtifactTooLong):
        await artifacts.add(note("x" * (LIMIT_BYTES - frame + 1)))
    with pytest.raises(ArtifactTooLong):
        await artifacts.add(note("é" * (LIMIT_BYTES // 2)))


contents = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sets(st.sampled_from(["x", "y"]))), max_size=80)


@settings(max_examples=40, deadline=None)
@given(contents, st.integers(1, 7), st.sampled_from(["a", "b", None]), st.sampled_from(["x", "y", "z", None]))
def test_pages_list_each_artifact_once_newest_first(
    made: list[tuple[str, set[str]]], limit: int, kind: str | None, tag: str | None
):
    async def play() -> None:
        artifacts = Artifacts(MemoryStore())
        heads = [
            (await artifacts.add(note(number, kind=own, tags=tuple(sorted(tags)))))[0]
            for number, (own, tags) in enumerate(made)
        ]
        expected = [
            head
            for head in reversed(heads)
            if (kind is None or head.kind == kind) and (tag is None or tag in head.tags)
        ]
        assert await all_pages(artifacts, limit, kind=kind, tag=tag) == expected

    trio.run(play)


async def test_rare_tag_is_found_in_bounded_pages():
    store = MemoryStore()
    artifacts = Artifacts(store)
    rare, _new = await artifacts.add(note("rare", tags=("rare",)))
    for number in range(MAX_SCANNED + BATCH):
        await artifacts.add(note(number))
    heads, following = await artifacts.listed(kind=None, tag="rare", limit=10, before=None)
    assert (heads, following is None) == ([], False)
    assert await artifacts.listed(kind=None, tag="rare", limit=10, before=following) == ([rare], None)


async def test_task_record_is_an_artifact():
    store = MemoryStore()
    artifacts, task = Artifacts(store), Task(TaskRequest(task_id=UUID(int=7), prompt="hello", seed=3), "c", 0.0)
    task.end(3, 2, 1.0)
    identifier = artifacts.record(task.view(), task.request, None)
    shown = await artifacts.get(identifier)
    assert shown is not None
    content = json.loads(shown)["content"]
    assert (content["task"]["task_id"], content["parameters"]["seed"]) == (str(UUID(int=7)), 3)
    document = canonical_document(note(kind="task", tags=json.loads(shown)["tags"]), canonical_json(content))
    assert identifier == artifact_id(document)
    heads = await all_pages(artifacts, 10, kind="task", tag=f"task:{UUID(int=7)}")
    assert [head.id for head in heads] == [identifier]

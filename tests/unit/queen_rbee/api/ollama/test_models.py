"""What is said of models, pulls and names. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.handoff import HandoffModel
from llama_orch.contracts.models import DiskModel
from llama_orch.contracts.node_operations import NodeOperation, NodeOperationState, OperationProgress
from llama_orch.contracts.pools import PoolState, PoolStatus, Residency
from queen_rbee.api.ollama.descriptions import listed, loaded, shown
from queen_rbee.api.ollama.loads import first_to_load
from queen_rbee.api.ollama.pulls import find_on_disk, progress_line, reference
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.model_lookup import ModelListing

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
DIGEST = "ab" * 32


def pool(**changes: Any) -> PoolStatus:
    model = HandoffModel(id="tiny", path="/tiny.gguf", size_bytes=70)
    residency = Residency(model=model, need_bytes={"0": 100, "cpu": 20}, keep_alive_s=300)
    fields = {"pool_id": "p", "state": PoolState.READY, "live": True, "ready": True, "draining": False}
    fields |= {"engine": "llamacpp", "models_available": ["/models/Tiny.gguf"], "ctx_max": 512, "residency": residency}
    return PoolStatus(**{**fields, **changes})


def test_listed_model_has_size_and_digest() -> None:
    found = ModelListing("tiny", None, ("p",), True, 512, ("completion",))
    described = listed(found, [pool(model_digests={"/models/Tiny.gguf": f"sha256:{DIGEST}"})])
    assert (described.name, described.model, described.size, described.digest) == ("tiny", "tiny", 70, DIGEST)
    assert described.details.format == "gguf"
    assert len(listed(found, [pool()]).digest) == 64


def test_loaded_model_has_memory_and_lifetime() -> None:
    (found,) = loaded([pool(), pool(pool_id="q", idle_s=10.0, unload_in_s=290.0), pool(ready=False)], NOON)
    assert (found.name, found.size, found.size_vram, found.context_length) == ("tiny", 240, 200, 512)
    assert found.expires_at == NOON + timedelta(seconds=300)
    assert loaded([pool(residency=None)], NOON)[0].expires_at.year > 2100
    assert loaded([pool(idle_s=1.0)], NOON)[0].expires_at.year > 2100
    assert loaded([pool(idle_s=1.0, unload_in_s=2.0)], NOON)[0].expires_at == NOON + timedelta(seconds=2)


def test_shown_model_has_context_and_capabilities() -> None:
    found = shown(ModelListing("tiny", 0, ("p",), True, 512, ("completion", "embedding")), [pool()])
    assert found.model_info["llamacpp.context_length"] == 512
    assert found.capabilities == ["completion", "tools", "embedding"]
    assert "FROM tiny" in found.modelfile
    assert shown(ModelListing("gone", None, (), False, None), []).capabilities == []


@pytest.mark.parametrize(
    ("name", "ref"),
    [
        ("hf:org/repo:Q4_K_M", "hf:org/repo:Q4_K_M"),
        ("hf.co/org/repo:Q4_K_M", "hf:org/repo:Q4_K_M"),
        ("hf.co/org/repo:latest", "hf:org/repo"),
        ("file:/srv/m.gguf", "file:/srv/m.gguf"),
        ("https://example.org/m.gguf", "https://example.org/m.gguf"),
    ],
)
def test_pulled_names_become_references(name: str, ref: str) -> None:
    assert reference(name) == ref


@pytest.mark.parametrize("name", ["llama3.2", "llama3.2:latest", "llama3.2:3b", "ftp://example.org/m.gguf"])
def test_names_of_ollamas_library_are_refused(name: str) -> None:
    with pytest.raises(ApiError, match="Name a reference as in"):
        reference(name)


def operation(state: NodeOperationState, **fields: Any) -> NodeOperation:
    return NodeOperation(id="1", kind="pull", subject="hf:o/r", state=state, created_at=NOON, **fields)


def test_pull_shows_progress_and_end() -> None:
    assert progress_line(operation(NodeOperationState.QUEUED)) == {"status": "pulling hf:o/r"}
    progress = OperationProgress(bytes_done=5, bytes_total=9)
    running = progress_line(operation(NodeOperationState.RUNNING, progress=progress))
    assert (running["completed"], running["total"]) == (5, 9)
    assert str(running["digest"]).startswith("sha256:")
    assert progress_line(operation(NodeOperationState.DONE)) == {"status": "success"}
    failed = operation(NodeOperationState.FAILED, error="the disk is full", hint="Free space.")
    assert progress_line(failed) == {"error": "the disk is full. Free space."}
    assert "error" in progress_line(operation(NodeOperationState.CANCELLED))


def on_disk(ref: str) -> DiskModel:
    times: dict[str, Any] = {"fetched_at": NOON, "used_at": NOON, "pinned": False, "recorded": True, "owned": True}
    return DiskModel(ref=ref, files=[], size_bytes=1, **times)


def test_model_on_disk_is_found_by_reference_or_file() -> None:
    models = [on_disk("hf:o/r/a.gguf"), on_disk("file:/x/b.gguf"), on_disk("file:/y/b.gguf")]
    assert find_on_disk("hf:o/r/a.gguf", models).ref == "hf:o/r/a.gguf"
    assert find_on_disk("a:latest", models).ref == "hf:o/r/a.gguf"
    assert find_on_disk("file:/y/b.gguf", models).ref == "file:/y/b.gguf"
    with pytest.raises(ApiError, match="several models") as several:
        find_on_disk("b", models)
    assert several.value.status == 409
    with pytest.raises(ApiError, match='model "c" not found'):
        find_on_disk("c", models)


def candidate(name: str, state: PoolState, **fields: Any) -> Candidate:
    return Candidate(name, "r0", "http://127.0.0.1:1", state, False, False, 1, 0, "llamacpp", **fields)


def test_pool_that_is_coming_up_is_loaded_first() -> None:
    known = [
        candidate("a", PoolState.FAILED),
        candidate("b", PoolState.UNLOADED, loadable=True),
        candidate("c", PoolState.STARTING, loadable=True),
    ]
    assert first_to_load(known).pool_id == "c"
    assert first_to_load(known[:2]).pool_id == "b"
    with pytest.raises(ApiError, match="a is failed") as refused:
        first_to_load(known[:1])
    assert refused.value.status == 503

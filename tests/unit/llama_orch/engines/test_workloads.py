"""Workloads of engines by their options, their handoff files and their own answers."""

import pytest

from llama_orch.contracts.handoff import Handoff
from llama_orch.engines.engine_client import EngineClient
from llama_orch.engines.llamacpp import ask_workloads
from llama_orch.engines.llamacpp_launch import mode_of_flags
from llama_orch.engines.workloads import announced, union
from tests.unit.pool_managerd.scripted_http import http, scripted_http

DISABLED = http(501, b'{"error":{"message":"This server does not support this."}}')
ENABLED = http(400, b'{"error":{"message":"\\"input\\" or \\"content\\" must be provided"}}')
RERANK_ENABLED = http(400, b'{"error":{"message":"\\"query\\" must be provided"}}')
NO_POOLING = http(400, b'{"error":{"message":"Pooling type \'none\' is not OAI compatible."}}')
OTHER_SERVER = http(400, b'{"error":{"message":"model is required"}}')


@pytest.mark.parametrize(
    ("flags", "default", "safe"),
    [
        ("", "completion", {"completion"}),
        ("--pooling mean", "completion", {"completion"}),
        ("--embeddings", "embedding", {"embedding"}),
        ("--embedding --pooling none", "embedding", {"embedding"}),
        ("--embeddings --pooling mean", "embedding", {"embedding", "completion"}),
        ("--pooling none --embeddings --pooling=last", "embedding", {"embedding", "completion"}),
        ("--embeddings --pooling rank", "rerank", {"rerank"}),
        ("--rerank", "rerank", {"rerank"}),
        ("--embeddings --reranking --pooling mean", "rerank", {"rerank"}),
        ("--embeddings --pooling", "embedding", {"embedding"}),
    ],
)
def test_flags_decide_the_workload(flags: str, default: str, safe: set[str]) -> None:
    mode = mode_of_flags(flags.split())
    assert (mode.default_workload, set(map(str, mode.safe_workloads))) == (default, safe)


@pytest.mark.parametrize(
    ("rerank", "embeddings", "workloads"),
    [
        (DISABLED, DISABLED, ("completion",)),
        (DISABLED, ENABLED, ("embedding",)),
        (DISABLED, NO_POOLING, ("embedding",)),
        (RERANK_ENABLED, ENABLED, ("rerank",)),
        (OTHER_SERVER, OTHER_SERVER, None),
        (DISABLED, http(200, b"{}"), None),
        (DISABLED, b"x", None),
    ],
)
async def test_llama_server_reports_its_workload(rerank: bytes, embeddings: bytes, workloads: object) -> None:
    async with scripted_http({"/v1/rerank": rerank, "/v1/embeddings": embeddings}) as port:
        assert await ask_workloads(EngineClient(f"http://127.0.0.1:{port}", 1.0)) == workloads


@pytest.mark.parametrize(
    ("fields", "workloads"),
    [
        ({}, None),
        ({"flags": ["--embeddings"]}, ["embedding"]),
        ({"flags": ["--embeddings"], "engine": "vllm"}, None),
        ({"flags": ["--embeddings"], "workloads": ["embedding", "completion"]}, ["embedding", "completion"]),
    ],
)
def test_handoff_announces_by_field_or_flags(fields: dict[str, object], workloads: object) -> None:
    document = {"pool_id": "a", "engine_version": "1", "url": "http://127.0.0.1:1", **fields}
    assert announced(Handoff.model_validate(document)) == workloads


def test_workloads_of_several_engines_are_united() -> None:
    assert union([["rerank"], ["completion"]]) == ["completion", "rerank"]
    assert union([["rerank"], None]) is None
    assert union([]) is None

"""What an engine does is known by its options, its handoff file, or its own answers."""

import pytest

from llama_orch.contracts.handoff import Handoff
from llama_orch.engines.asking import llama_server_workloads
from llama_orch.engines.workloads import announced, mode_of, union
from tests.unit.pool_managerd.scripted_http import http, scripted_http

OFF = http(501, b'{"error":{"message":"This server does not support this."}}')
ON = http(400, b'{"error":{"message":"\\"input\\" or \\"content\\" must be provided"}}')
RANKS = http(400, b'{"error":{"message":"\\"query\\" must be provided"}}')
NO_POOLING = http(400, b'{"error":{"message":"Pooling type \'none\' is not OAI compatible."}}')
OTHER = http(400, b'{"error":{"message":"model is required"}}')


@pytest.mark.parametrize(
    ("flags", "usual", "possible"),
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
def test_flags_decide_the_workload(flags: str, usual: str, possible: set[str]) -> None:
    mode = mode_of(flags.split())
    assert (mode.usual, set(map(str, mode.possible))) == (usual, possible)


@pytest.mark.parametrize(
    ("rerank", "embeddings", "told"),
    [
        (OFF, OFF, ["completion"]),
        (OFF, ON, ["embedding"]),
        (OFF, NO_POOLING, ["embedding"]),
        (RANKS, ON, ["rerank"]),
        (OTHER, OTHER, None),
        (OFF, http(200, b"{}"), None),
        (OFF, b"x", None),
    ],
)
async def test_a_llama_server_is_asked_without_being_put_to_work(
    rerank: bytes, embeddings: bytes, told: object
) -> None:
    async with scripted_http({"/v1/rerank": rerank, "/v1/embeddings": embeddings}) as port:
        assert await llama_server_workloads(f"http://127.0.0.1:{port}", 1.0) == told


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, None),
        ({"flags": ["--embeddings"]}, ["embedding"]),
        ({"flags": ["--embeddings"], "engine": "vllm"}, None),
        ({"flags": ["--embeddings"], "workloads": ["embedding", "completion"]}, ["embedding", "completion"]),
    ],
)
def test_a_handoff_tells_by_its_field_or_its_flags(fields: dict[str, object], told: object) -> None:
    document = {"pool_id": "a", "engine_version": "1", "url": "http://127.0.0.1:1", **fields}
    assert announced(Handoff.model_validate(document)) == told


def test_engines_of_one_pool_do_together_what_each_is_known_to_do() -> None:
    assert union([["rerank"], ["completion"]]) == ["completion", "rerank"]
    assert union([["rerank"], None]) is None
    assert union([]) is None

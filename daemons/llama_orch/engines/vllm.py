"""vLLM's OpenAI-compatible server."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from llama_orch.engines.engine_client import EngineClient
from llama_orch.engines.kind import (
    OPENAI_COMPLETIONS,
    OPENAI_EMBEDDINGS,
    RERANK,
    Description,
    Kind,
    Launch,
    LaunchRequest,
    Load,
    any_workload,
    no_conflicts,
)
from llama_orch.engines.openai_models import describe_models
from llama_orch.engines.prometheus_text import samples, total

if TYPE_CHECKING:
    from llama_orch.engines.wire.adapter import EngineAdapter

KV_GAUGES = (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc")
"""The current name, then that of older releases. Both are fractions of 1 despite their names."""
LOAD_LIMIT_S = 0.25
"""A busy vLLM may be slow with its metrics; it is not less healthy for that."""


async def describe(client: EngineClient) -> Description | None:
    """Read /v1/models, where vLLM adds the context length."""
    return describe_models(await client.get("/v1/models"))


async def load(client: EngineClient, _flags: Sequence[str]) -> Load:
    """Read the KV cache's gauge from /metrics."""
    return Load(kv_usage=kv_usage(await client.get("/metrics")))


def kv_usage(metrics: bytes) -> float | None:
    """Return the used part of the KV cache, 0 to 1. With several engine cores, whose caches have one size, the mean."""
    by_name = (samples(name, metrics) for name in KV_GAUGES)
    values: Sequence[float] = next(filter(None, by_name), [])
    return fmean(min(1.0, max(0.0, value)) for value in values) if values else None


async def tokens(client: EngineClient) -> int | None:
    """Read the counter of generated tokens from /metrics."""
    return total(b"vllm:generation_tokens_total", await client.get("/metrics"))


def arguments(request: LaunchRequest) -> list[str]:
    """Return the arguments behind the entry point of the image vllm/vllm-openai."""
    names = dict.fromkeys(filter(None, (request.model_name, request.model_alias)))
    argv = ["--model", request.model_path, "--served-model-name", *names]
    argv += ["--host", request.host, "--port", str(request.port)]
    argv += ["--max-model-len", str(request.ctx), "--max-num-seqs", str(request.slots)]
    return [*argv, "--tensor-parallel-size", str(len(request.devices))] if len(request.devices) > 1 else argv


def _adapter() -> "EngineAdapter":
    from llama_orch.engines.wire.vllm import Vllm

    return Vllm()


KIND = Kind(
    "vllm",
    relay_paths={**OPENAI_COMPLETIONS, **OPENAI_EMBEDDINGS, **RERANK},
    describe=describe,
    adapter=_adapter,
    version_path="/version",
    load=load,
    load_limit_s=LOAD_LIMIT_S,
    tokens=tokens,
    launch=Launch(
        arguments,
        any_workload,
        no_conflicts,
        only_in_container=True,
        container_env={"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
    ),
)

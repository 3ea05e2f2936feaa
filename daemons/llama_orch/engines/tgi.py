"""Hugging Face's Text Generation Inference. It does not report how many requests it processes at once."""

from typing import TYPE_CHECKING

from llama_orch.engines.engine_client import EngineClient, positive, text
from llama_orch.engines.kind import (
    OPENAI_COMPLETIONS,
    Description,
    Kind,
    Launch,
    LaunchRequest,
    any_workload,
    no_conflicts,
)
from llama_orch.engines.prometheus_text import total

if TYPE_CHECKING:
    from llama_orch.engines.wire.adapter import EngineAdapter


async def describe(client: EngineClient) -> Description | None:
    """Read /info."""
    info = await client.get_object("/info")
    model = text(info.get("model_id"))
    if model is None:
        return None
    return Description((model,), positive(info.get("max_total_tokens")), version=text(info.get("version")))


async def tokens(client: EngineClient) -> int | None:
    """Read the sum of generated tokens from /metrics."""
    return total(b"tgi_request_generated_tokens_sum", await client.get("/metrics"))


def arguments(request: LaunchRequest) -> list[str]:
    """Return the arguments behind the entry point of the image ghcr.io/huggingface/text-generation-inference.

    TGI waits with requests that do not fit into a batch by itself; `slots` only limits how many it accepts.
    """
    argv = ["--model-id", request.model_path, "--hostname", request.host, "--port", str(request.port)]
    argv += ["--max-total-tokens", str(request.ctx), "--max-input-tokens", str(request.ctx - 1)]
    argv += ["--max-concurrent-requests", str(request.slots)]
    return [*argv, "--num-shard", str(len(request.devices))] if len(request.devices) > 1 else argv


def _adapter() -> "EngineAdapter":
    from llama_orch.engines.wire.tgi import Tgi

    return Tgi()


KIND = Kind(
    "tgi",
    relay_paths={"/generate_stream": "completion", **OPENAI_COMPLETIONS},
    describe=describe,
    adapter=_adapter,
    tokens=tokens,
    launch=Launch(
        arguments,
        any_workload,
        no_conflicts,
        only_in_container=True,
        container_env={"HF_HUB_OFFLINE": "1", "HF_HOME": "/tmp/hf", "DISABLE_USAGE_STATS": "1"},  # noqa: S108 -- its own
    ),
)

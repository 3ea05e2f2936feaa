"""Hugging Face's Text Generation Inference. It does not report how many requests it processes at once."""

from typing import TYPE_CHECKING

from llama_orch.engines.engine_client import EngineClient, positive, text
from llama_orch.engines.kind import OPENAI_COMPLETIONS, Description, Kind
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


def _adapter() -> "EngineAdapter":
    from llama_orch.engines.wire.tgi import Tgi

    return Tgi()


KIND = Kind(
    "tgi",
    relay_paths={"/generate_stream": "completion", **OPENAI_COMPLETIONS},
    describe=describe,
    adapter=_adapter,
    tokens=tokens,
)

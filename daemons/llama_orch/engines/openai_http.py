"""Any server of OpenAI's API (LM Studio, SGLang, llama-swap, …): nothing but what that API has.

Its list of models is its health check as well, since it need not have another one, and its models may come and go.
"""

from typing import TYPE_CHECKING

from llama_orch.engines.engine_client import EngineClient
from llama_orch.engines.kind import OPENAI_COMPLETIONS, OPENAI_EMBEDDINGS, Description, Kind
from llama_orch.engines.openai_models import describe_models

if TYPE_CHECKING:
    from llama_orch.engines.wire.adapter import EngineAdapter


async def describe(client: EngineClient) -> Description | None:
    """Read /v1/models."""
    return describe_models(await client.get("/v1/models"))


def _adapter() -> "EngineAdapter":
    from llama_orch.engines.wire.openai_http import OpenAiHttp

    return OpenAiHttp()


KIND = Kind(
    "openai-http",
    relay_paths={**OPENAI_COMPLETIONS, **OPENAI_EMBEDDINGS},
    describe=describe,
    adapter=_adapter,
    health_path="/v1/models",
    describe_by_health=describe_models,
    models_are_fixed=False,
)

"""The model list of servers that implement OpenAI's API: GET /v1/models."""

from pydantic import BaseModel, TypeAdapter

from llama_orch.engines.engine_client import parse
from llama_orch.engines.kind import Description


class _Model(BaseModel):
    id: str
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


MODELS = TypeAdapter(_Models)


def describe_models(body: bytes) -> Description | None:
    """Read the answer of /v1/models; None if it lists no model. `max_model_len`, of vLLM, is its context in tokens."""
    models = parse(MODELS, body)
    if not models or not models.data:
        return None
    lengths = [model.max_model_len for model in models.data if model.max_model_len]
    return Description(tuple(model.id for model in models.data), min(lengths, default=None))

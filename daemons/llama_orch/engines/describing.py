"""What an engine serves, where its handoff does not say: asked once, in the way of its kind. (The list of models of a
server of OpenAI's API is its health check as well, and read with each.)

An answer of any shape is borne; one that tells no model is no description, and is asked for again.
"""

from collections.abc import Awaitable, Mapping
from typing import Protocol, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from llama_orch.engines.asking import llama_server_workloads
from pool_managerd.pools.replica import Details

ASK_S = 2.0
MODELS_LIMIT = 64
"""Of so many models of a Triton server it is found out which make text."""

Shape = TypeVar("Shape")


class Fetch(Protocol):
    """How something of an engine is fetched."""

    def __call__(self, url: str, *, post: bool = False) -> Awaitable[bytes]:
        """The body of a good answer; nothing where there is none."""


class _Model(BaseModel):
    id: str
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Generation(BaseModel):
    n_ctx: int


class _Properties(BaseModel):
    default_generation_settings: _Generation


class _Info(BaseModel):
    model_id: str
    max_total_tokens: int | None = None


class _Listed(BaseModel):
    name: str
    state: str = "UNAVAILABLE"


class _Tensor(BaseModel):
    name: str


class _Metadata(BaseModel):
    inputs: list[_Tensor]
    outputs: list[_Tensor]


MODELS = TypeAdapter(_Models)
PROPERTIES = TypeAdapter(_Properties)
INFO = TypeAdapter(_Info)
INDEX = TypeAdapter(list[_Listed])
METADATA = TypeAdapter(_Metadata)


def parsed(shape: TypeAdapter[Shape], body: bytes) -> Shape | None:
    """`body` if it has that shape."""
    try:
        return shape.validate_json(body)
    except ValidationError:
        return None


def openai_models(body: bytes) -> Details | None:
    """What /v1/models says; vLLM adds how long a context may be."""
    models = parsed(MODELS, body)
    if not models or not models.data:
        return None
    lengths = [model.max_model_len for model in models.data if model.max_model_len]
    return Details(tuple(model.id for model in models.data), min(lengths, default=None))


async def _llama_server(url: str, fetch: Fetch) -> Details:
    models = openai_models(await fetch(f"{url}/v1/models"))
    properties = parsed(PROPERTIES, await fetch(f"{url}/props"))
    workloads = await llama_server_workloads(url, ASK_S)
    return Details(
        models.models if models else (),
        properties.default_generation_settings.n_ctx if properties else None,
        tuple(workloads) if workloads else None,
    )


async def _vllm(url: str, fetch: Fetch) -> Details | None:
    return openai_models(await fetch(f"{url}/v1/models"))


async def _tgi(url: str, fetch: Fetch) -> Details | None:
    info = parsed(INFO, await fetch(f"{url}/info"))
    return Details((info.model_id,), info.max_total_tokens) if info else None


async def _triton(url: str, fetch: Fetch) -> Details | None:
    """The models that are ready and make text of text; others are parts of those, or have nothing to do with them."""
    listed = parsed(INDEX, await fetch(f"{url}/v2/repository/index", post=True)) or []
    ready = list(dict.fromkeys(model.name for model in listed if model.state == "READY"))[:MODELS_LIMIT]
    texts = tuple([name for name in ready if _makes_text(await fetch(f"{url}/v2/models/{name}"))])
    return Details(texts, None) if texts else None


def _makes_text(body: bytes) -> bool:
    metadata = parsed(METADATA, body)
    if metadata is None:
        return False
    inputs, outputs = ({tensor.name for tensor in tensors} for tensors in (metadata.inputs, metadata.outputs))
    return "text_input" in inputs and "text_output" in outputs


class _Way(Protocol):
    def __call__(self, url: str, fetch: Fetch) -> Awaitable[Details | None]: ...


WAYS: Mapping[str, _Way] = {
    "llamacpp": _llama_server,
    "vllm": _vllm,
    "tgi": _tgi,
    "triton": _triton,
}


async def describe(engine: str, url: str, fetch: Fetch) -> Details | None:
    """What the engine at `url`, of that kind, serves; None where it does not tell."""
    return await WAYS[engine](url, fetch)

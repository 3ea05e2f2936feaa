"""What an engine serves, where its handoff does not say: asked once, in the way of its kind. (The list of models of a
server of OpenAI's API is its health check as well, and read with each.)

An answer of any shape is borne; one that tells no model is no description, and is asked for again.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from llama_orch.contracts.engines import Workload
from llama_orch.engines.asking import llama_server_workloads
from llama_orch.http.client.client import UpstreamError, fetch_json


@dataclass(frozen=True)
class Details:
    """What an engine says about itself where its handoff does not; `ctx_max` in tokens a slot."""

    models: tuple[str, ...]
    ctx_max: int | None
    workloads: tuple[Workload, ...] | None = None


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


LOOK_S = 5.0


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself; None where it does not."""

    version: str | None = None
    slots: int | None = None
    ctx: int | None = None
    model: str | None = None
    workloads: list[Workload] | None = None


async def llama_server_facts(url: str) -> Facts:
    """What llama-server tells at /props: the slots it has, and the context that each of them really got, in tokens;
    and what it was started for."""
    props = await _json(url + "/props")
    settings = props.get("default_generation_settings")
    ctx = settings.get("n_ctx") if isinstance(settings, dict) else None
    model = _text(props.get("model_alias")) or _text(props.get("model_path"))
    workloads = await llama_server_workloads(url, LOOK_S)
    return Facts(_text(props.get("build_info")), _count(props.get("total_slots")), _count(ctx), model, workloads)


async def vllm_facts(url: str) -> Facts:
    """What vLLM tells at /version and /v1/models; where it serves several models, pool-managerd lists them."""
    version = _text((await _json(url + "/version")).get("version"))
    models = (await _json(url + "/v1/models")).get("data")
    only = models[0] if isinstance(models, list) and len(models) == 1 and isinstance(models[0], dict) else {}
    return Facts(version, ctx=_count(only.get("max_model_len")), model=_text(only.get("id")))


async def tgi_facts(url: str) -> Facts:
    """What TGI tells at /info; of how many requests it works on at once it says nothing."""
    said = await _json(url + "/info")
    return Facts(_text(said.get("version")), None, _count(said.get("max_total_tokens")), _text(said.get("model_id")))


async def triton_facts(url: str) -> Facts:
    """What Triton tells at /v2; pool-managerd finds its models."""
    return Facts(_text((await _json(url + "/v2")).get("version")))


async def openai_facts(_url: str) -> Facts:
    """Nothing: OpenAI's API tells no more than models, which may come and go, and which pool-managerd looks at."""
    return Facts()


FACTS: Mapping[str, Callable[[str], Awaitable[Facts]]] = {
    "llamacpp": llama_server_facts,
    "vllm": vllm_facts,
    "tgi": tgi_facts,
    "triton": triton_facts,
    "openai-http": openai_facts,
}


async def facts(url: str, engine: str) -> Facts:
    """What an engine of that kind tells of itself."""
    return await FACTS[engine](url)


async def _json(url: str) -> dict[str, Any]:
    try:
        status, value = await fetch_json(url, limit_s=LOOK_S)
    except UpstreamError:
        return {}
    return value if status == 200 and isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value[:256] if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None

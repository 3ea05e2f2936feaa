"""One look at an engine's health, and what it says about itself."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from llama_orch.contracts.engines import Workload, health_path, is_loading
from llama_orch.engines.asking import llama_server_workloads
from llama_orch.http.client.client import UpstreamError, fetch, fetch_json

LOOK_S = 5.0


class Condition(Enum):
    """What an engine answered."""

    UP = "up"
    LOADING = "loading"
    SILENT = "silent"


@dataclass(frozen=True)
class Look:
    """The condition, and the words for what is not UP."""

    condition: Condition
    detail: str = ""


@dataclass(frozen=True)
class Facts:
    """What an engine says of itself; None where it does not."""

    version: str | None = None
    slots: int | None = None
    ctx: int | None = None
    model: str | None = None
    workloads: list[Workload] | None = None


async def look(url: str, engine: str = "llamacpp") -> Look:
    """Ask the engine at `url`, of that kind, how it is, LOOK_S seconds at most. Never raises for what it does."""
    path = health_path(engine)
    try:
        status, _body = await fetch(url + path, limit_s=LOOK_S)
    except UpstreamError as error:
        return Look(Condition.SILENT, str(error))
    if status == 200:
        return Look(Condition.UP)
    if is_loading(engine, status):
        return Look(Condition.LOADING, "loading the model")
    return Look(Condition.SILENT, f"{path} answered with status {status}")


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

"""One look at an engine's health, and what it says about itself."""

from dataclasses import dataclass
from enum import Enum
from typing import Any

from llama_orch.http.client import UpstreamError, fetch, fetch_json

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


async def look(url: str, path: str = "/health") -> Look:
    """GET `path` of the engine at `url`, bounded by LOOK_S seconds. Never raises for what the engine does."""
    try:
        status, _body = await fetch(url + path, limit_s=LOOK_S)
    except UpstreamError as error:
        return Look(Condition.SILENT, str(error))
    if status == 200:
        return Look(Condition.UP)
    if status == 503:
        return Look(Condition.LOADING, "loading the model")
    return Look(Condition.SILENT, f"{path} answered with status {status}")


async def llama_server_facts(url: str) -> Facts:
    """What llama-server tells at /props: the slots it has, and the context that each of them really got, in tokens."""
    props = await _json(url + "/props")
    settings = props.get("default_generation_settings")
    ctx = settings.get("n_ctx") if isinstance(settings, dict) else None
    model = _text(props.get("model_alias")) or _text(props.get("model_path"))
    return Facts(_text(props.get("build_info")), _count(props.get("total_slots")), _count(ctx), model)


VERSION_PATHS = {"vllm": "/version", "tgi": "/info", "triton": "/v2"}
HEALTH_PATHS = {"triton": "/v2/health/ready"}


async def facts(url: str, engine: str) -> Facts:
    """What an engine of that kind tells of itself."""
    if engine == "llamacpp":
        return await llama_server_facts(url)
    said = await _json(url + VERSION_PATHS[engine])
    return Facts(_text(said.get("version")), model=_text(said.get("model_id")))


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

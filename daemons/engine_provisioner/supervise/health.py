"""One look at an engine's health, and what it says about itself."""

from dataclasses import dataclass
from enum import Enum

from llama_orch.contracts.engines import health_path, is_loading
from llama_orch.engines.describing import LOOK_S
from llama_orch.http.client.client import UpstreamError, fetch


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

"""An engine's health check, and its description of itself."""

from dataclasses import dataclass, replace
from enum import Enum

import trio

from llama_orch.engines import KINDS
from llama_orch.engines.engine_client import EngineClient, text
from llama_orch.engines.kind import Description
from llama_orch.http.client.client import UpstreamError, fetch

LIMIT_S = 5.0
DESCRIBE_LIMIT_S = 3 * LIMIT_S


class Condition(Enum):
    """The result of a health check."""

    UP = "up"
    LOADING = "loading"
    SILENT = "silent"


@dataclass(frozen=True)
class HealthCheck:
    """The condition, and why it is not UP."""

    condition: Condition
    detail: str = ""


async def check(url: str, engine: str) -> HealthCheck:
    """Ask the engine at `url`, of that kind, for its health. Takes at most LIMIT_S seconds; never raises."""
    kind = KINDS[engine]
    try:
        status, _body = await fetch(url + kind.health_path, limit_s=LIMIT_S)
    except UpstreamError as error:
        return HealthCheck(Condition.SILENT, str(error))
    if status == 200:
        return HealthCheck(Condition.UP)
    if status in kind.loading_statuses:
        return HealthCheck(Condition.LOADING, "loading the model")
    return HealthCheck(Condition.SILENT, f"{kind.health_path} answered with status {status}")


async def describe(url: str, engine: str) -> Description:
    """Ask the engine what a handoff file should tell: no models if they may change while it runs.

    Takes at most DESCRIBE_LIMIT_S seconds; never raises. Unknown values stay None.
    """
    kind = KINDS[engine]
    client = EngineClient(url, LIMIT_S)
    with trio.move_on_after(DESCRIBE_LIMIT_S):
        found = await kind.describe(client) if kind.models_are_fixed else None
        found = found or Description(())
        if kind.version_path:
            found = replace(found, version=text((await client.get_object(kind.version_path)).get("version")))
        return found
    return Description(())

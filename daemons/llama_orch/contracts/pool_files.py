"""The pools files of a machine: what orchctl asks engine-provisioner, over its Unix socket."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints

from llama_orch.contracts.base import Inbound, Outbound, PoolId
from llama_orch.contracts.pools import PoolState

EngineChoice = Literal["package", "pip"]


class PoolDraft(Inbound):
    """The body of POST /v2/pools/draft. `keys` are further keys of the pool, as in the pools file.

    Without `pool_id`, the pool that has this model already is found, or else a name is derived from the model. Without
    `engine`, a way to provide the engine is chosen.
    """

    pool_id: PoolId | None = None
    model: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    engine: EngineChoice | None = None
    keys: Annotated[dict[str, JsonValue], Field(max_length=32)] = {}


class PoolFile(Outbound):
    """The answer: a valid pools file with one pool, which the client may write to `path`.

    `content` is null if the pool is configured already, in `path`. `note` says what was chosen.
    """

    pool_id: PoolId
    path: str
    content: str | None = None
    note: str = ""


class ConfiguredPool(Outbound):
    """A pool of the pools files. `model` is without credentials; `only`: its file has no other content.

    `file_model` is that of the file, if a reload has replaced it by `model`.
    """

    pool_id: PoolId
    path: str
    only: bool = False
    engine: str
    mode: str
    model: str | None = None
    file_model: str | None = None
    state: PoolState | None = None
    detail: str | None = None
    last_error: str | None = None


class ConfiguredPools(Outbound):
    """The answer to GET /v2/pools of engine-provisioner. Drop-in files are in `directory`."""

    directory: str
    pools: list[ConfiguredPool]

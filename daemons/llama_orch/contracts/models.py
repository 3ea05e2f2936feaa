"""Models on the disk of a node, in engine-provisioner's API."""

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from llama_orch.contracts.base import Inbound, Outbound

ModelRef = Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^[^\x00-\x1f\x7f]+$")]


class PullRequest(Inbound):
    """The body of POST /v2/models/pull: a reference as in the key model of pools.toml."""

    ref: ModelRef


class PinRequest(Inbound):
    """The body of POST /v2/models/pin. A pinned model is not evicted."""

    ref: ModelRef
    pinned: bool = True


class ModelFile(Outbound):
    """A file of a model. `digest` is sha256:…, null if it was not verified."""

    path: str
    size_bytes: int
    digest: str | None = None
    role: str


class DiskModel(Outbound):
    """A model on disk.

    `ref` is shown without secrets. `quantization`, `architecture` and `context` (in tokens, as trained) are those of
    its file, null if it cannot be read; then `problem` says why. `pools` use it. `recorded` is false for a model that
    was found on disk without a record. The files of one that is not `owned` are left when it is removed.
    """

    ref: str
    revision: str | None = None
    files: list[ModelFile]
    size_bytes: Annotated[int, Field(ge=0)]
    quantization: str | None = None
    architecture: str | None = None
    context: int | None = None
    problem: str | None = None
    fetched_at: datetime
    used_at: datetime
    pinned: bool
    recorded: bool
    owned: bool
    pools: list[str] = []


class DiskModelList(Outbound):
    """GET /v2/models of engine-provisioner, the last used first. `limit_bytes` null: no limit.

    `total_bytes` are those of owned files; a file that models share counts once.
    """

    models: list[DiskModel]
    count: int
    total_bytes: int
    limit_bytes: int | None = None


class ModelRemoved(Outbound):
    """The answer to DELETE /v2/models."""

    freed_bytes: int

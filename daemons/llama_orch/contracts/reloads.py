"""Reloads and purges of pools: what clients and daemons ask for, and how a reload shows in the status of its pool."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from llama_orch.contracts.base import Inbound, Outbound, PoolId

ReloadId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$")]
ModelRef = Annotated[str, StringConstraints(min_length=1, max_length=2048)]


class ReloadRequest(Inbound):
    """The body of POST /v2/pools/{id}/reload. Without `new_model_ref` the pool keeps its model.

    `new_model_ref` is the reference of a model that is on the disk of the pool's machine.
    """

    new_model_ref: ModelRef | None = None


class ReloadOrder(ReloadRequest):
    """The same between daemons: the queen chooses the id by which it recognizes the reload in the pool's status.

    `on_disk`: refuse a model that is not on the disk. pool-managerd sets it: only clients of
    engine-provisioner's socket can have a model fetched.
    """

    reload_id: ReloadId | None = None
    on_disk: bool = False


class SwitchOrder(Inbound):
    """What the queen says about a staged reload: that the pool gets no new tasks and, with `drained`, that it has none
    left, so that its engine may be replaced."""

    reload_id: ReloadId
    drained: bool


class ReloadCancel(Inbound):
    """The reload to be called off."""

    reload_id: ReloadId


class ReloadState(StrEnum):
    """The state of a reload. Until it is `switching`, the former engine serves and the reload can be called off.

    `staging`: engine and model are being fetched and checked. `staged`: the pool waits to be drained. `switching`: the
    new engine is being started. `reverting`: it failed, and the former one is started again.
    """

    STAGING = "staging"
    STAGED = "staged"
    SWITCHING = "switching"
    REVERTING = "reverting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def can_be_cancelled(self) -> bool:
        return self in (ReloadState.STAGING, ReloadState.STAGED)

    @property
    def holds_pool(self) -> bool:
        """Whether the pool is to get no new tasks."""
        return self in (ReloadState.STAGED, ReloadState.SWITCHING, ReloadState.REVERTING)

    @property
    def ended(self) -> bool:
        return self in (ReloadState.DONE, ReloadState.FAILED, ReloadState.CANCELLED)


class PoolReload(Outbound):
    """The latest reload of a pool. `error` is why it failed."""

    reload_id: ReloadId
    state: ReloadState
    detail: Annotated[str, StringConstraints(max_length=1024)] | None = None
    error: Annotated[str, StringConstraints(max_length=4096)] | None = None


class PoolPurged(Outbound):
    """The answer to a purge: the bytes that were freed, and which files were left to others, and why."""

    pool_id: PoolId
    freed_bytes: Annotated[int, Field(ge=0)] = 0
    kept: Annotated[list[str], Field(max_length=64)] = []

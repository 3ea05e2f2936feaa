"""Long-running operations of a node: pulls of models, and whatever else engine-provisioner is asked to do."""

from datetime import datetime
from enum import StrEnum

from llama_orch.contracts.base import Outbound


class NodeOperationState(StrEnum):
    """The state of an operation. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (NodeOperationState.DONE, NodeOperationState.FAILED, NodeOperationState.CANCELLED)


class OperationProgress(Outbound):
    """How far an operation is. The rate is the average of the last seconds; null is unknown."""

    bytes_done: int = 0
    bytes_total: int | None = None
    rate_bytes_s: float | None = None
    eta_s: float | None = None


class NodeOperation(Outbound):
    """GET /v2/operations/{id} of engine-provisioner. `subject` is what is worked on, such as the reference of a model.

    `detail` is what is done now, or the result. `error` and `hint` are set if it failed.
    """

    id: str
    kind: str
    subject: str
    state: NodeOperationState
    progress: OperationProgress = OperationProgress()
    detail: str | None = None
    error: str | None = None
    hint: str | None = None
    created_at: datetime
    ended_at: datetime | None = None


class NodeOperationList(Outbound):
    """GET /v2/operations of engine-provisioner, newest first."""

    operations: list[NodeOperation]
    count: int


class OperationAccepted(Outbound):
    """The answer to a request that starts an operation, or joins the one that already does the same."""

    operation_id: str

"""Tasks: the request, its acceptance, and the view of a task."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints

from llama_orch.contracts.base import Inbound, Outbound, PoolId
from llama_orch.contracts.engines import EngineKind, Workload
from llama_orch.contracts.errors import Reason
from llama_orch.contracts.keep_alive import KeepAlive

PROMPT_LIMIT = 4 << 20
DAY_MS = 86_400_000
WAIT_LIMIT_S = 7 * 86_400

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Text = Annotated[str, StringConstraints(max_length=PROMPT_LIMIT)]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=PROMPT_LIMIT)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
PoolIds = Annotated[tuple[PoolId, ...], Field(max_length=256)]


class TaskState(StrEnum):
    """The state of a task. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (TaskState.DONE, TaskState.FAILED, TaskState.CANCELLED)


class PlacementWish(Inbound):
    """Placement constraints of a task. A pin that cannot be met is an error; there is no fallback."""

    mode: Literal["pin", "prefer", "auto"] = "auto"
    pin_pool_id: PoolId | None = None
    prefer_pools: PoolIds = ()
    avoid_pools: PoolIds = ()
    require_device_mask: Annotated[str, StringConstraints(pattern=r"^(cpu|[0-9]{1,3}(,[0-9]{1,3})*)$")] | None = None
    allow_fallback: bool = True


def _pinned(wish: PlacementWish | None) -> PlacementWish | None:
    if wish and wish.mode == "pin" and wish.pin_pool_id is None:
        raise ValueError("mode pin requires pin_pool_id")
    return wish


class TaskRequest(Inbound):
    """One inference task. Lengths are in tokens; `deadline_ms` counts from admission. `wait_s`: how many seconds it may
    wait until it starts; 0 if it must not wait for a load of its model. `keep_alive`: how long its model stays loaded
    after its last task, in place of what the pool says."""

    task_id: UUID | None = None
    session_id: UUID | None = None
    workload: Workload = "completion"
    model_ref: Name | None = None
    engine: EngineKind | None = None
    ctx: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    priority: Literal["interactive", "batch"] = "interactive"
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
    determinism: Literal["strict", "best_effort"] = "best_effort"
    prompt: Annotated[Prompt | None, Field(examples=["The queen"])] = None
    inputs: Annotated[tuple[Text, ...], Field(max_length=2048)] = ()
    max_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=7 * DAY_MS)] | None = None
    wait_s: Annotated[int, Field(ge=0, le=WAIT_LIMIT_S)] | None = None
    expected_tokens: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    kv_hint: Literal["reuse", "cold"] | None = None
    keep_alive: KeepAlive | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(ge=0, le=100)] | None = None
    stop: Annotated[tuple[StopText, ...], Field(max_length=16)] = ()
    placement: Annotated[PlacementWish | None, AfterValidator(_pinned)] = None
    output_mode: Literal["text", "json", "edits"] | None = None


class Streams(Outbound):
    """The paths of a task's event streams on the queen."""

    sse: str
    sse_verbose: str


class Preparation(Outbound):
    """The steps that are necessary before the task can run."""

    steps: list[str] = []


class TaskAccepted(Outbound):
    """The 202 answer. `queue_position` is 0 for the task that runs next; times are in milliseconds.

    `predicted_start_ms` includes the time until the model is loaded. It is null while no suitable pool is ready and
    that time is not known.
    """

    task_id: UUID
    job_id: UUID
    queue_position: int
    predicted_start_ms: int | None
    backoff_ms: int
    streams: Streams
    preparation: Preparation


class Usage(Outbound):
    """The number of tokens of prompt and answer."""

    tokens_in: int = 0
    tokens_out: int = 0


class Timings(Outbound):
    """Times and durations of a task; null for what has not happened yet."""

    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    queued_ms: float | None = None
    first_token_ms: float | None = None
    decode_ms: float | None = None


class TaskError(Outbound):
    """Why a task failed."""

    code: str
    message: str
    reason: Reason | None = None
    retriable: bool
    retry_after_ms: int | None = None


class TaskView(Outbound):
    """The answer to GET /v2/tasks/{id}, without prompt and answer. `key` is the name of the user's key that sent it."""

    task_id: UUID
    job_id: UUID
    session_id: UUID | None = None
    state: TaskState
    workload: str
    priority: str
    model_ref: str | None = None
    pool_id: str | None = None
    replica_id: str | None = None
    queue_position: int | None = None
    predicted_start_ms: int | None = None
    usage: Usage
    timings: Timings
    error: TaskError | None = None
    correlation_id: str | None = None
    key: str | None = None


class TaskList(Outbound):
    """One page of tasks, newest first. `next` is the `before` of the next page."""

    tasks: list[TaskView]
    count: int
    next: str | None = None

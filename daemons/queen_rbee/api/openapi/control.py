"""The operations of /v2 and those that every daemon has."""

from llama_orch.contracts.meta import Capabilities, Liveness, Readiness, Version
from llama_orch.contracts.pools import PoolHealth, PoolList
from llama_orch.contracts.tasks import TaskAccepted, TaskList, TaskRequest, TaskState, TaskView
from queen_rbee.api.openapi.events import ABOUT, OF_A_TASK
from queen_rbee.api.openapi.headers import BUDGETS, PLACE
from queen_rbee.api.openapi.operation import (
    EVENT_STREAM,
    TEXT,
    UUID,
    Answer,
    Operation,
    Parameter,
    Schema,
    document,
    for_everybody,
    reading,
)
from queen_rbee.api.paging import LARGEST_PAGE, PAGE
from queen_rbee.api.tasks import VERBOSE

COUNT: Schema = {"type": "integer", "minimum": 1, "maximum": LARGEST_PAGE, "default": PAGE}
LIMIT = Parameter("limit", "How many at most.", COUNT)
STATES: Schema = {"type": "string", "enum": [state.value for state in TaskState]}
FLAG: Schema = {"type": "string", "enum": [*VERBOSE], "default": "false"}


def before(schema: Schema, example: str | None = None) -> Parameter:
    """Where a page begins, by the id of the last thing on the page before."""
    return Parameter("before", "The `next` of the page before.", schema, example=example)


TASKS = (
    Operation(
        "POST",
        "/v2/tasks",
        "submit_task",
        "Submit a task",
        {202: document("It waits.", TaskAccepted, "X-Queue-Position", *BUDGETS, task_id="/task_id")},
        body=TaskRequest,
        errors=(404, 409, 429, 503),
    ),
    reading(
        "/v2/tasks",
        "list_tasks",
        "Tasks, newest first",
        TaskList,
        Parameter("state", "Only those in this state.", STATES),
        LIMIT,
        before(UUID),
        task_id="/tasks/0/task_id",
    ),
    reading("/v2/tasks/{task_id}", "get_task", "One task", TaskView, errors=(503,)),
    Operation(
        "GET",
        "/v2/tasks/{task_id}/events",
        "read_events",
        "A task's events as they come",
        {200: Answer("The stream.", {EVENT_STREAM: OF_A_TASK}, PLACE)},
        parameters=(
            Parameter("verbose", "Whether `narration` is sent, too.", FLAG),
            Parameter("Last-Event-ID", "Go on behind this event; from the start where it is no id.", TEXT, "header"),
        ),
        about=ABOUT,
    ),
    Operation(
        "POST",
        "/v2/tasks/{task_id}/cancel",
        "cancel_task",
        "Cancel a task",
        {204: Answer("It has ended, now or before; not one more token comes.")},
    ),
)

POOLS = (
    reading("/v2/pools", "list_pools", "The pools", PoolList, pool_id="/pools/0/pool_id"),
    reading("/v2/pools/{pool_id}/health", "get_pool_health", "How a pool is", PoolHealth),
    Operation(
        "POST",
        "/v2/handoff/scan",
        "scan_handoffs",
        "Look at the handoff directory now",
        {204: Answer("It has been looked at.")},
    ),
)

DAEMON = (
    for_everybody(reading("/v2/meta/version", "get_version", "Versions of release and API", Version)),
    for_everybody(reading("/v2/meta/capabilities", "get_capabilities", "What each pool offers", Capabilities)),
    for_everybody(reading("/health", "get_health", "Whether it lives", Liveness)),
    Operation(
        "GET",
        "/ready",
        "get_readiness",
        "Whether it is ready",
        {200: document("A pool is ready.", Readiness), 503: document("None is, and why.", Readiness)},
        open=True,
    ),
    Operation(
        "GET", "/metrics", "get_metrics", "Metrics", {200: Answer("Prometheus' text format.", {"text/plain": TEXT})}
    ),
    reading("/openapi.json", "get_description", "This document", {"type": "object"}),
)

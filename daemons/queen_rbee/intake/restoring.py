"""What a new queen does with the tasks that an earlier one had accepted: they wait again, or end with the reason."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import trio
from pydantic import ValidationError

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.contracts.validation import invalid_fields, summary
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.engines.passage import Passage, passage_for
from queen_rbee.intake.intake import Intake
from queen_rbee.store.protocol import Store, StoredTask
from queen_rbee.tasks.task import Task

SHOWN_PROBLEMS = 3


@dataclass(frozen=True)
class RunAgain:
    """Nobody has seen anything of it: it waits again, from the start. `left_s` is until its deadline, if it has one."""

    stored: StoredTask
    request: TaskRequest
    left_s: float | None


@dataclass(frozen=True)
class EndNow:
    """It cannot go on; its client is told why. `request` is None where this release cannot read it."""

    stored: StoredTask
    request: TaskRequest | None
    code: ErrorCode
    message: str
    retriable: bool


def recovered(stored: StoredTask, now: float) -> RunAgain | EndNow:
    """What becomes of `stored` at `now`, in seconds since the epoch."""
    try:
        request = TaskRequest.model_validate_json(stored.request)
    except ValidationError as error:
        problems = summary(invalid_fields(error), SHOWN_PROBLEMS, "request")
        message = f"queen-rbee was replaced by a release that does not understand this task: {problems}"
        return EndNow(stored, None, ErrorCode.INTERNAL, message, retriable=False)
    if stored.ended:
        message = "it had ended just before queen-rbee was killed; how, was not stored"
        return EndNow(stored, request, ErrorCode.WORKER_RESET, message, retriable=True)
    if stored.delivered:
        message = "queen-rbee restarted after a part of the answer had been shown"
        return EndNow(stored, request, ErrorCode.WORKER_RESET, message, retriable=True)
    left_s = _left_s(request, stored.submitted, now)
    if left_s is not None and left_s <= 0:
        message = "the deadline passed while queen-rbee was not running"
        return EndNow(stored, request, ErrorCode.DEADLINE_UNMET, message, retriable=False)
    return RunAgain(stored, request, left_s)


def _left_s(request: TaskRequest, submitted: float, now: float) -> float | None:
    """Seconds until the deadline; the whole time again where the clock was set back before the submission."""
    if request.deadline_ms is None:
        return None
    return request.deadline_ms / 1000 - max(0.0, now - submitted)


@dataclass(frozen=True)
class Now:
    """One moment on both clocks: seconds since the epoch, and trio's."""

    wall: float
    trio: float


async def restore(store: Store, intake: Intake, accounting: Accounting) -> None:
    """Take over every open task of `store`, in the order of admission. Raises StoreFailure."""
    now = Now(time.time(), trio.current_time())
    found = [recovered(stored, now.wall) for stored in await store.open_tasks()]
    for each in found:
        if isinstance(each, RunAgain):
            intake.restore(_task(each.stored, each.request, now, passage_for(each.request)))
        else:
            _end(each, accounting, now)
    if found:
        waiting = sum(isinstance(each, RunAgain) for each in found)
        emit(events.TASKS_RESTORED, waiting=waiting, ended=len(found) - waiting)


def _end(found: EndNow, accounting: Accounting, now: Now) -> None:
    task = _task(found.stored, found.request or TaskRequest(), now)
    accounting.book.add(task)
    if task.fail(found.code, found.message, now.trio, retriable=found.retriable):
        accounting.ended(task)


def _task(stored: StoredTask, request: TaskRequest, now: Now, passage: Passage | None = None) -> Task:
    """The task as it was, its deadline where it was on the wall's clock; a clock set back lets it begin anew."""
    request = request.model_copy(update={"task_id": stored.task_id})
    age_s = max(0.0, now.wall - stored.submitted)
    return Task(
        request,
        stored.correlation_id,
        now.trio - age_s,
        passage,
        submitted_wall=datetime.fromtimestamp(stored.submitted, UTC),
        generation=stored.generation,
        durable=True,
        job_id=stored.job_id,
        traceparent=stored.traceparent,
    )

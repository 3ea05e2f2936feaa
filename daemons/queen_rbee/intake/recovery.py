"""Restore the tasks that were accepted before a restart: they wait again, or end with the reason why they cannot."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import trio
from pydantic import ValidationError

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.contracts.validation import invalid_fields, summary
from llama_orch.engines.wire.passage import Passage, passage_for
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.intake.intake import Intake
from queen_rbee.keys.keyring import Keyring
from queen_rbee.keys.owners import owner_of
from queen_rbee.store.protocol import DurableTasks, StoredTask
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import Task

MAX_PROBLEMS = 3
"""Validation errors that a message lists."""


@dataclass(frozen=True)
class RunAgain:
    """The task waits again, from the start: no reader got a piece of its answer. `left_s` is until its deadline."""

    stored: StoredTask
    request: TaskRequest
    left_s: float | None


@dataclass(frozen=True)
class EndNow:
    """The task ends with an error. `request` is None if this release cannot parse it."""

    stored: StoredTask
    request: TaskRequest | None
    code: ErrorCode
    message: str
    retriable: bool


@dataclass(frozen=True)
class Moment:
    """The same moment on two clocks: seconds since the epoch, and trio's."""

    wall: float
    trio: float


def recovery_of(stored: StoredTask, now: float) -> RunAgain | EndNow:
    """Decide what to do with a stored task. `now` is in seconds since the epoch."""
    try:
        request = TaskRequest.model_validate_json(owner_of(stored.request)[1])
    except ValidationError as error:
        message = f"queen-rbee was replaced by a release that cannot read this task: {_problems(error)}"
        return EndNow(stored, None, ErrorCode.INTERNAL, message, retriable=False)
    if stored.ended:
        message = "the task had ended when queen-rbee was killed, but its result was not stored"
        return EndNow(stored, request, ErrorCode.WORKER_RESET, message, retriable=True)
    if stored.delivered:
        message = "queen-rbee restarted after a part of the answer had been sent"
        return EndNow(stored, request, ErrorCode.WORKER_RESET, message, retriable=True)
    left_s = _time_left_s(request, stored.submitted, now)
    if left_s is not None and left_s <= 0:
        message = "the deadline passed while queen-rbee was not running"
        return EndNow(stored, request, ErrorCode.DEADLINE_UNMET, message, retriable=False)
    return RunAgain(stored, request, left_s)


def _time_left_s(request: TaskRequest, submitted: float, now: float) -> float | None:
    """Return the time until the deadline; all of it if the wall clock was set back before the submission."""
    if request.deadline_ms is None:
        return None
    return request.deadline_ms / 1000 - max(0.0, now - submitted)


def _problems(error: ValidationError) -> str:
    """List the fields that are wrong, without their values: they may be parts of the prompt."""
    return summary(invalid_fields(error), MAX_PROBLEMS, "request")


async def restore(store: DurableTasks, intake: Intake, book: TaskBook, accounting: Accounting) -> None:
    """Restore or end every open task in the store, in the order of admission. Raises StoreFailure."""
    now = Moment(time.time(), trio.current_time())
    recoveries = [recovery_of(stored, now.wall) for stored in await store.open_tasks()]
    for recovery in recoveries:
        if isinstance(recovery, RunAgain):
            task = _task(recovery.stored, recovery.request, now, passage_for(recovery.request), keys=intake.keys)
            intake.restore(task)
        else:
            _end(recovery, book, accounting, now, intake.keys)
    if recoveries:
        waiting = sum(isinstance(recovery, RunAgain) for recovery in recoveries)
        emit(events.TASKS_RESTORED, waiting=waiting, ended=len(recoveries) - waiting)


def _end(recovery: EndNow, book: TaskBook, accounting: Accounting, now: Moment, keys: Keyring) -> None:
    task = _task(recovery.stored, recovery.request or TaskRequest(), now, keys=keys)
    book.add(task)
    if task.fail(recovery.code, recovery.message, now.trio, retriable=recovery.retriable):
        accounting.record_end(task)


def _task(
    stored: StoredTask, request: TaskRequest, now: Moment, passage: Passage | None = None, *, keys: Keyring
) -> Task:
    """Recreate the task with its deadline on the wall clock; the full time again if that clock was set back."""
    request = request.model_copy(update={"task_id": stored.task_id})
    age_s = max(0.0, now.wall - stored.submitted)
    task = Task(
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
    if owner := owner_of(stored.request)[0]:
        task.charge = keys.charge_for(owner, task.size, request.max_tokens)
    return task

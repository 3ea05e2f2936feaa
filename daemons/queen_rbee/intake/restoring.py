"""What a new queen does with the tasks that an earlier one had accepted: they wait again, or end with the reason."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

import trio

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.telemetry import events
from llama_orch.telemetry.records import emit
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.engines.passage import Passage
from queen_rbee.intake.intake import Intake
from queen_rbee.store.protocol import Store, StoredTask
from queen_rbee.store.recovery import EndNow, RunAgain, recovered
from queen_rbee.tasks.task import Task
from queen_rbee.workloads import passage_for


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

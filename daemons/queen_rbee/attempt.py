"""A task on one replica, and what becomes of it where that fails."""

from dataclasses import dataclass, field
from typing import Literal

import trio

from llama_orch.contracts.errors import ErrorCode
from queen_rbee.candidates import Candidate
from queen_rbee.failure import Failure
from queen_rbee.task import Task

MOVES_MOST = 2
"""So often a task is placed again after what it was sent to has broken: a task may be what breaks it."""

Next = Literal["elsewhere", "elsewhere or wait", "end"]


@dataclass
class Attempt:
    """A task that runs on `target`; `lost` says why its place is taken from under it."""

    target: Candidate
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    lost: str | None = None


def breaks(failure: Failure, attempt: Attempt) -> bool:
    """Whether what the task was sent to has broken under it; the task may be why."""
    return attempt.lost is None and not failure.elsewhere


def next_for(task: Task, failure: Failure, attempt: Attempt) -> Next:
    """What becomes of `task`: it ends; it goes on elsewhere, where that can be had at once; or it waits for that, too,
    since its place was lost and nobody has refused it. Of what its readers have seen a part, nothing is tried again."""
    if task.shown or task.state.final or not (failure.elsewhere or failure.lost):
        return "end"
    if breaks(failure, attempt) and task.moves >= MOVES_MOST:
        return "end"
    return "elsewhere or wait" if failure.lost else "elsewhere"


def ending(task: Task, failure: Failure, attempt: Attempt) -> Failure:
    """What `task` ends with that goes on nowhere. Where several replicas were tried and it has begun on none, that says
    more than the last one's own failure, which it quotes."""
    tried = {*task.refused_by, attempt.target.key}
    if task.shown or len(tried) < 2 or not (failure.elsewhere or failure.lost):
        return failure
    message = f"{len(tried)} replicas were tried, and none has taken the task; the last one: {failure}"
    return Failure(ErrorCode.REPLICA_EXHAUSTED, message, retriable=True, quoted=failure.quoted)

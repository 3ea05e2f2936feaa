"""A task on one replica, and what becomes of it where that fails. Pure."""

from dataclasses import dataclass, field

import trio

from llama_orch.contracts.errors import ErrorCode
from queen_rbee.dispatch.failure import Failure
from queen_rbee.pools.candidates import Candidate
from queen_rbee.tasks.task import Task

MOVES_MOST = 2
"""So often a task is placed again after what it was sent to has broken: a task may be what breaks it."""


@dataclass
class Attempt:
    """A task that runs on `target`; `lost` says why its place is taken from under it."""

    target: Candidate
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    lost: str | None = None


def breaks(failure: Failure, attempt: Attempt) -> bool:
    """Whether what the task was sent to has broken under it; the task may be why."""
    return attempt.lost is None and not failure.elsewhere


def goes_on(task: Task, failure: Failure, attempt: Attempt, waited_s: float, limit_s: float) -> bool:
    """Whether `task` is tried on another replica, or waits for one, rather than ending with `failure`.

    A task whose readers have seen a part of its answer is never tried again. `waited_s` is the time since its first
    place was lost, `limit_s` the longest that may become.
    """
    if task.shown or task.state.final or not (failure.elsewhere or failure.lost):
        return False
    if breaks(failure, attempt) and task.moves >= MOVES_MOST:
        return False
    return waited_s < limit_s


def ending(task: Task, failure: Failure, attempt: Attempt) -> Failure:
    """What `task` ends with that goes on nowhere. Where several replicas were tried and it has begun on none, that says
    more than the last one's own failure, which it quotes."""
    tried = {*task.tried, attempt.target.key}
    if task.shown or len(tried) < 2 or not (failure.elsewhere or failure.lost):
        return failure
    message = f"{len(tried)} replicas were tried, and none has begun to answer; the last one: {failure}"
    return Failure(ErrorCode.REPLICA_EXHAUSTED, message, retriable=True, blame=failure.blame, quoted=failure.quoted)

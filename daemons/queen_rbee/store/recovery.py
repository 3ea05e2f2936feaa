"""What becomes of a task that was accepted by a queen that is gone: a pure decision."""

from dataclasses import dataclass

from pydantic import ValidationError

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.store.protocol import StoredTask

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
        message = f"queen-rbee was replaced by a release that does not understand this task: {_problems(error)}"
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


def _problems(error: ValidationError) -> str:
    """What is wrong and where, without what was asked."""
    found = [f"{'.'.join(map(str, item['loc'])) or 'request'}: {item['msg']}" for item in error.errors()]
    more = len(found) - SHOWN_PROBLEMS
    return "; ".join(found[:SHOWN_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")

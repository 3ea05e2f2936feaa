"""How a task fails on a replica, and what the words of an engine, or of a node's relay, mean for it. Pure."""

from llama_orch.contracts.errors import ErrorBody, ErrorCode, Reason
from queen_rbee.engines.adapter import Refused


class Failure(Exception):
    """The task cannot be finished here.

    `engine_fault` is False where the request was wrong or the engine has no room: it is well. `elsewhere`: the engine
    has not begun with the task, so that another replica may be asked at once. Where it has begun and broke, the task
    may be what breaks it: only the client may ask again, which `retriable` allows. `quoted`: the words are the
    engine's. `lost`: the way to the engine broke (its node is gone), which says nothing of the task.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retriable: bool,
        engine_fault: bool = True,
        elsewhere: bool = False,
        lost: bool = False,
        quoted: bool = False,
        reason: Reason | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable
        self.engine_fault = engine_fault
        self.elsewhere = elsewhere
        self.lost = lost
        self.quoted = quoted
        self.reason = reason


def refused(said: Refused, *, begun: bool = False) -> Failure:
    """What an engine's refusal means for the task: the client's fault, or worth another try."""
    if said.client_fault and not said.busy:
        return Failure(
            ErrorCode.INVALID_PARAMS,
            said.message,
            retriable=False,
            engine_fault=False,
            quoted=True,
            reason=said.reason,
        )
    elsewhere = said.busy and not begun
    return Failure(
        ErrorCode.WORKER_RESET,
        said.message,
        retriable=True,
        engine_fault=not said.busy,
        elsewhere=elsewhere,
        quoted=True,
    )


def relay_failure(verdict: str, status: int, body: bytes) -> Failure:
    """What it means that a node's relay answers in place of the engine: the engine was not reached, or broke off."""
    try:
        words = ErrorBody.model_validate_json(body).message
    except ValueError:
        words = f"the node's relay answers {status}"
    reached = verdict != "refused"
    fault = reached or status in (502, 504)
    return Failure(ErrorCode.WORKER_RESET, words, retriable=True, engine_fault=fault, elsewhere=not reached)

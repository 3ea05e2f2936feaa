"""How relaying a task to a replica fails, and what follows from each kind of failure. No I/O."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from llama_orch.contracts.errors import ErrorBody, ErrorCode, Reason
from llama_orch.engines.wire.adapter import EngineRefusal

Blame = Literal["nobody", "unsure", "replica"]
"""How a failure counts in the circuit breaker. `nobody`: not at all, the replica works. `unsure`: either the request or
the replica may be at fault. `replica`: the replica cannot serve any request at present."""

NextStep = Literal["end", "retry", "elsewhere"]
"""`end`: the task ends. `elsewhere`: the engine did not start the task, so any number of replicas may be tried.
`retry`: as `elsewhere`, but only a few times, since the task itself may have broken the engine."""

NODE_STATUSES = frozenset({401, 403, 404, 408, 429})
"""4xx statuses of a relay that are about the node (wrong token, missing pool) and not about the request."""


class FailureKind(Enum):
    """Why a task cannot be finished on a replica."""

    BAD_REQUEST = auto()
    """The engine cannot serve this request, here or elsewhere."""
    UNAVAILABLE = auto()
    """The engine is unreachable, or busy, and did not start the task."""
    BUSY_MIDWAY = auto()
    """The engine reports that it is busy after a part of the answer."""
    CONNECTION_LOST = auto()
    """The connection broke after the request was sent."""
    STALLED = auto()
    """The engine sent nothing for too long."""
    ENGINE_ERROR = auto()
    """The engine failed, or its answer is malformed or too long."""
    DISPLACED = auto()
    """queen-rbee took the task off the replica: its node went offline, or a drain timed out."""
    EXHAUSTED = auto()
    """Several replicas were tried, and none started to answer."""


@dataclass(frozen=True)
class Consequence:
    """`retriable` is for the client: whether it may submit the task again."""

    code: ErrorCode
    retriable: bool
    blame: Blame
    next_step: NextStep


CONSEQUENCES = {
    FailureKind.BAD_REQUEST: Consequence(ErrorCode.INVALID_PARAMS, False, "nobody", "end"),
    FailureKind.UNAVAILABLE: Consequence(ErrorCode.WORKER_RESET, True, "replica", "elsewhere"),
    FailureKind.BUSY_MIDWAY: Consequence(ErrorCode.WORKER_RESET, True, "replica", "end"),
    FailureKind.CONNECTION_LOST: Consequence(ErrorCode.WORKER_RESET, True, "unsure", "retry"),
    FailureKind.STALLED: Consequence(ErrorCode.DECODE_TIMEOUT, True, "unsure", "end"),
    FailureKind.ENGINE_ERROR: Consequence(ErrorCode.WORKER_RESET, True, "unsure", "end"),
    FailureKind.DISPLACED: Consequence(ErrorCode.WORKER_RESET, True, "nobody", "retry"),
    FailureKind.EXHAUSTED: Consequence(ErrorCode.REPLICA_EXHAUSTED, True, "nobody", "end"),
}


class RelayFailure(Exception):
    """The task cannot be finished on this replica.

    `quoted`: the message is the engine's own text. It may repeat the prompt, so only the client may see it.
    """

    def __init__(self, kind: FailureKind, message: str, *, quoted: bool = False, reason: Reason | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.quoted = quoted
        self.reason = reason

    @property
    def code(self) -> ErrorCode:
        return CONSEQUENCES[self.kind].code

    @property
    def retriable(self) -> bool:
        return CONSEQUENCES[self.kind].retriable

    @property
    def blame(self) -> Blame:
        return CONSEQUENCES[self.kind].blame

    @property
    def next_step(self) -> NextStep:
        return CONSEQUENCES[self.kind].next_step


def engine_refusal(refused: EngineRefusal, *, answer_started: bool = False) -> RelayFailure:
    """Return the failure for an error that the engine reports."""
    if refused.client_fault and not refused.busy:
        return RelayFailure(FailureKind.BAD_REQUEST, refused.message, quoted=True, reason=refused.reason)
    if refused.busy:
        kind = FailureKind.BUSY_MIDWAY if answer_started else FailureKind.UNAVAILABLE
    elif refused.gone and not answer_started:
        kind = FailureKind.CONNECTION_LOST
    else:
        kind = FailureKind.ENGINE_ERROR
    return RelayFailure(kind, refused.message, quoted=True)


def node_relay_failure(verdict: str, status: int, body: bytes) -> RelayFailure:
    """Return the failure for an error that a node's relay reports in place of the engine's answer."""
    try:
        message = ErrorBody.model_validate_json(body).message
    except ValueError:
        message = f"the node's relay answered with status {status}"
    if verdict == "refused":
        bad_request = 400 <= status < 500 and status not in NODE_STATUSES
        return RelayFailure(FailureKind.BAD_REQUEST if bad_request else FailureKind.UNAVAILABLE, message)
    return RelayFailure(FailureKind.STALLED if status == 504 else FailureKind.CONNECTION_LOST, message)

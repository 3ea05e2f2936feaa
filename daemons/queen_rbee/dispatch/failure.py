"""How a task fails on a replica, and what the words of an engine, or of a node's relay, mean for it. Pure."""

from typing import Literal

from llama_orch.contracts.errors import ErrorBody, ErrorCode, Reason
from llama_orch.engines.wire.adapter import EngineRefusal

Blame = Literal["nobody", "unsure", "replica"]
"""Whom a failure counts against. `nobody`: the request was wrong, or its place was taken; the replica is well.
`unsure`: the request or the replica may be at fault. `replica`: it can serve nothing at present, whoever asks."""

NODE_STATUSES = frozenset({401, 403, 404, 408, 429})
"""Of the 4xx of a relay those that are the node's: a token that differs, a pool that it does not have."""


class Failure(Exception):
    """The task cannot be finished here.

    `elsewhere`: the engine has not begun with the task, so any number of replicas may be tried. `lost`: the connection
    broke after the request was sent; the task may be the cause, so that it is tried only a few times more. With neither
    the task ends, and only its client may try again, which `retriable` allows. `quoted`: the words are the engine's.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        *,
        retriable: bool,
        blame: Blame = "unsure",
        elsewhere: bool = False,
        lost: bool = False,
        quoted: bool = False,
        reason: Reason | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable
        self.blame = blame
        self.elsewhere = elsewhere
        self.lost = lost
        self.quoted = quoted
        self.reason = reason


def refused(said: EngineRefusal, *, begun: bool = False) -> Failure:
    """What an engine's refusal means for the task: the client's fault, or worth another try."""
    if said.client_fault and not said.busy:
        return Failure(
            ErrorCode.INVALID_PARAMS,
            said.message,
            retriable=False,
            blame="nobody",
            quoted=True,
            reason=said.reason,
        )
    return Failure(
        ErrorCode.WORKER_RESET,
        said.message,
        retriable=True,
        blame="replica" if said.busy else "unsure",
        elsewhere=said.busy and not begun,
        lost=said.gone and not begun,
        quoted=True,
    )


def relay_failure(verdict: str, status: int, body: bytes) -> Failure:
    """What it means that a node's relay answers in place of the engine: the engine was not reached, or broke off."""
    try:
        words = ErrorBody.model_validate_json(body).message
    except ValueError:
        words = f"the node's relay answers {status}"
    if verdict == "refused" and 400 <= status < 500 and status not in NODE_STATUSES:
        return Failure(ErrorCode.INVALID_PARAMS, words, retriable=False, blame="nobody")
    if verdict == "refused":
        return Failure(ErrorCode.WORKER_RESET, words, retriable=True, blame="replica", elsewhere=True)
    if status == 504:
        return Failure(ErrorCode.DECODE_TIMEOUT, words, retriable=True)
    return Failure(ErrorCode.WORKER_RESET, words, retriable=True, lost=True)

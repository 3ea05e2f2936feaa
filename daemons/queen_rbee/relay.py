"""The relay: runs one task on one engine and appends what comes to the task's event log.

Owns the connection to the engine for as long as the task runs there; leaving it in any way closes the connection, which
is what frees the engine's slot. Every wait has a limit.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import trio

from llama_orch.contracts.errors import ErrorCode
from llama_orch.http.client import Response, UpstreamError, UpstreamTimeout, request
from llama_orch.http.sse import MalformedStream, ServerSentEvent, read_events
from queen_rbee.candidates import Candidate
from queen_rbee.engines.adapter import EngineAdapter, Finished, Piece, Refused
from queen_rbee.task import Task


@dataclass(frozen=True)
class Limits:
    """How long an engine may be silent, in seconds. The first token is given time for the prompt too."""

    connect_s: float = 5.0
    first_token_s: float = 120.0
    per_prompt_kb_s: float = 2.0
    idle_s: float = 30.0

    def first(self, prompt: str) -> float:
        """How long the first token may take."""
        return self.first_token_s + self.per_prompt_kb_s * len(prompt) / 1024


class Failure(Exception):
    """The task cannot be finished here. `engine_fault` is False where the request was wrong, not the engine."""

    def __init__(self, code: ErrorCode, message: str, *, retriable: bool, engine_fault: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.retriable = retriable
        self.engine_fault = engine_fault


async def run(task: Task, target: Candidate, adapter: EngineAdapter, limits: Limits) -> None:
    """Relay the engine's answer to `task` until it ends. Raises Failure; the caller decides what follows."""
    ask = adapter.ask(task.request)
    headers = {"content-type": "application/json", "x-correlation-id": task.correlation_id}
    if task.traceparent:
        headers["traceparent"] = task.traceparent
    first_s = limits.first(task.request.prompt or "")
    try:
        async with request(
            "POST",
            target.url + ask.path,
            headers=headers,
            body=ask.body,
            connect_s=limits.connect_s,
            head_s=first_s,
        ) as response:
            if response.status != 200:
                raise _refused(adapter.refusal(response.status, await response.read()))
            await _stream(task, adapter, response, limits, first_s)
    except UpstreamTimeout as error:
        raise Failure(ErrorCode.DECODE_TIMEOUT, f"the engine stalls: {error}", retriable=True) from error
    except (UpstreamError, MalformedStream) as error:
        raise Failure(ErrorCode.WORKER_RESET, f"the engine broke off: {error}", retriable=True) from error


async def _stream(task: Task, adapter: EngineAdapter, response: Response, limits: Limits, first_s: float) -> None:
    """Append what comes to the task until the answer is complete.

    One scope whose deadline moves with each token: a scope for each would cost as much as the token.
    """
    events = read_events(response.chunks())
    limit_s = first_s
    with trio.move_on_after(first_s) as silence:
        while not task.state.final:
            _act(task, await _next(adapter, events))
            limit_s = limits.idle_s
            silence.deadline = trio.current_time() + limit_s
        return
    raise UpstreamTimeout(f"no token within {limit_s:g} s")


async def _next(adapter: EngineAdapter, events: AsyncIterator[ServerSentEvent]) -> Piece | Finished:
    """What the engine says next. Raises Failure where it refuses, UpstreamError where it ends too early."""
    try:
        said = adapter.event((await anext(events)).data)
    except StopAsyncIteration as error:
        raise UpstreamError("the stream ended before the answer did") from error
    except ValueError as error:
        raise Failure(ErrorCode.WORKER_RESET, "the engine sends no events we know", retriable=True) from error
    if isinstance(said, Refused):
        raise _refused(said)
    return said


def _act(task: Task, said: Piece | Finished) -> None:
    now = trio.current_time()
    if isinstance(said, Finished):
        task.end(said.tokens_in, said.tokens_out, now)
    elif said.text:
        task.token(said.text, now)


def _refused(refused: Refused) -> Failure:
    if refused.client_fault:
        return Failure(ErrorCode.INVALID_PARAMS, refused.message, retriable=False, engine_fault=False)
    return Failure(ErrorCode.WORKER_RESET, refused.message, retriable=True)

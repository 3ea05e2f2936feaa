"""Relay one task to one engine, and append the answer to the task's event log.

Owns the connection to the engine. Leaving `run` in any way closes or returns the connection, which frees the engine's
slot. Every wait is bounded, and so is the answer.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import trio

from llama_orch.contracts.nodes import RELAY_HEADER
from llama_orch.engines.wire.adapter import (
    AnswerPart,
    EngineAdapter,
    EngineCall,
    EngineRefusal,
    Finished,
    StreamChunk,
    TextPiece,
    WholeAnswer,
)
from llama_orch.engines.wire.errors import classified
from llama_orch.http.client.client import Response, Unreachable, UpstreamError, UpstreamTimeout, request
from llama_orch.http.client.sse import EventParser, MalformedStream
from llama_orch.http.server.bodies import in_thread_if_large
from llama_orch.telemetry.events import queen as events
from llama_orch.telemetry.records import emit
from queen_rbee.dispatch.failures import FailureKind, RelayFailure, engine_refusal, node_relay_failure
from queen_rbee.dispatch.hop import DIRECT, Hop
from queen_rbee.dispatch.max_tokens import fit_to_error
from queen_rbee.dispatch.stalls import StallLimits, StallTimer
from queen_rbee.pools.candidates import Candidate, served_name
from queen_rbee.tasks.task import Task

ANSWER_LIMIT = 64 << 20
"""Bytes of the largest answer (of a stream: characters), as many as 1,000 embeddings of 4,096 numbers."""
ERROR_LIMIT = 64 << 10
"""Bytes that are read of an error's body."""
PARSE_IN_THREAD_BYTES = 256 << 10
CLOSE_WAIT_S = 0.02
MAX_EXTRA_TOKENS = 64
"""An engine that sends this many tokens beyond max_tokens does not know the limit or does not stop."""

Body = TypeVar("Body", str, bytes)


async def run(task: Task, target: Candidate, adapter: EngineAdapter, limits: StallLimits, hop: Hop = DIRECT) -> None:
    """Relay the engine's answer to `task` until the answer ends. Raises RelayFailure.

    The task ends after the connection is closed, and nothing is awaited after that: its readers see the end once the
    caller has released the slot, so that a session's next turn finds its replica free.
    """
    dialogue = await in_thread_if_large(task.size, partial(_dialogue, task, target, adapter))
    task.measurements.sent_at, task.measurements.answered_at = trio.current_time(), None
    timer = StallTimer(limits, task.size, task.measurements.sent_at)
    try:
        with timer.scope:
            last = await _request_within_context(task, target, dialogue, adapter, timer, hop)
            task.end(last.tokens_in, last.tokens_out, trio.current_time())
            return
    except Unreachable as error:
        raise RelayFailure(FailureKind.UNAVAILABLE, f"the engine is unreachable: {error}") from error
    except UpstreamTimeout as error:
        raise RelayFailure(FailureKind.STALLED, f"the engine stalled: {error}") from error
    except UpstreamError as error:
        raise RelayFailure(FailureKind.CONNECTION_LOST, f"the engine broke off: {error}") from error
    except MalformedStream as error:
        raise RelayFailure(FailureKind.ENGINE_ERROR, f"the engine broke off: {error}") from error
    raise RelayFailure(FailureKind.STALLED, f"the engine stalled: {timer.describe(trio.current_time())}")


def _dialogue(task: Task, target: Candidate, adapter: EngineAdapter) -> EngineCall:
    try:
        return adapter.call(task.request, task.passage, served_name(target, task.request.model_ref))
    except ValueError as error:
        raise RelayFailure(FailureKind.BAD_REQUEST, str(error)) from error


async def _request_within_context(
    task: Task, target: Candidate, dialogue: EngineCall, adapter: EngineAdapter, timer: StallTimer, hop: Hop
) -> Finished:
    """As `_request`, but repeat once with a smaller max_tokens if the engine says that it exceeds the context."""
    try:
        return await _request(task, target, dialogue, adapter, timer, hop)
    except RelayFailure as failure:
        may_repeat = task.passage and failure.quoted and not task.answer_started
        smaller = fit_to_error(task.passage, str(failure)) if task.passage and may_repeat else None
        if smaller is None:
            raise
        task.passage = smaller
    return await _request(task, target, _dialogue(task, target, adapter), adapter, timer, hop)


async def _request(
    task: Task, target: Candidate, dialogue: EngineCall, adapter: EngineAdapter, timer: StallTimer, hop: Hop
) -> Finished:
    """Send the request and append the answer to the task; return the engine's closing report."""
    headers = {
        "content-type": "application/json",
        "x-correlation-id": task.correlation_id,
        **hop.headers(target, task.request),
    }
    if task.trace:
        headers.update(task.trace.call(task, target))
    elif task.traceparent:
        headers["traceparent"] = task.traceparent
    emit(events.TASK_SENT, job_id=task.job_id, pool_id=target.pool_id, url=target.url)
    async with request(
        "POST",
        target.url + dialogue.path,
        headers=headers,
        body=dialogue.body,
        connections=hop.kept(target),
        tls=hop.tls if target.node_id else None,
        connect_s=timer.limits.connect_s,
        head_s=float("inf"),  # bounded by the timer's scope
    ) as response:
        if target.node_id and (verdict := response.headers.get(RELAY_HEADER)):
            raise node_relay_failure(verdict, response.status, await _error_body(response, timer.limits.idle_s))
        if response.status != 200:
            error_body = await _error_body(response, timer.limits.idle_s)
            raise engine_refusal(adapter.refusal(response.status, error_body))
        if dialogue.streamed:
            return await _read_stream(task, dialogue, response, timer, adapter)
        return await _read_document(task, dialogue, response, adapter)


async def _error_body(response: Response, timeout_s: float) -> bytes:
    """Return the beginning of an error's body. The status counts even if the body breaks off."""
    body = bytearray()
    with trio.move_on_after(timeout_s), suppress(UpstreamError):
        async for chunk in response.chunks():
            body += chunk
            if len(body) > ERROR_LIMIT:
                break
    return bytes(body[:ERROR_LIMIT])


async def _read_stream(
    task: Task, dialogue: EngineCall, response: Response, timer: StallTimer, adapter: EngineAdapter
) -> Finished:
    remaining = ANSWER_LIMIT
    max_tokens = _max_tokens(task)
    measured = task.measurements
    chunks, parser, flush = response.chunks(), EventParser(), task.answer.flush if task.answer else None
    async for chunk in chunks:
        now, tokens_before = trio.current_time(), measured.tokens_out
        for data in parser.feed(chunk):
            remaining -= len(data)
            if remaining < 0:
                raise _endless_answer(f"its answer is longer than {ANSWER_LIMIT} characters")
            last = _append(task, _parse(dialogue.event, data) if data else (), now, adapter)
            if last:
                if not response.reusable:
                    await _drain(chunks)
                return last
            if measured.tokens_out > max_tokens:
                raise _endless_answer(
                    f"max_tokens is {task.request.max_tokens}, and it has sent {measured.tokens_out} tokens"
                )
            timer.received(now, token=measured.tokens_out > tokens_before)
        if flush and measured.first_token_at is not None:
            await flush()
    return _require_end(_append(task, dialogue.closed(), trio.current_time(), adapter))


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read the rest of the body for a moment: only then can the connection be kept, and the engine sees no abort."""
    with trio.move_on_after(CLOSE_WAIT_S), suppress(UpstreamError):
        async for _chunk in chunks:
            pass


def _endless_answer(detail: str) -> RelayFailure:
    return RelayFailure(FailureKind.ENGINE_ERROR, f"the engine does not stop: {detail}")


def _max_tokens(task: Task) -> float:
    """Return after how many tokens a stream is cut off.

    Chunks of OpenAI streams are not limited: one may belong to one of several choices, or hold less than a token.
    """
    if task.passage or task.request.max_tokens is None:
        return float("inf")
    return task.request.max_tokens + MAX_EXTRA_TOKENS


def _require_end(last: Finished | None) -> Finished:
    if last is None:
        raise UpstreamError("the stream ended before the answer did")
    return last


async def _read_document(task: Task, dialogue: EngineCall, response: Response, adapter: EngineAdapter) -> Finished:
    """Read an answer that is one JSON document. Large ones are parsed in a thread, so that other tasks go on."""
    body = await response.read(ANSWER_LIMIT)
    if len(body) < PARSE_IN_THREAD_BYTES:
        messages = _parse(dialogue.whole, body)
    else:
        messages = await trio.to_thread.run_sync(_parse, dialogue.whole, body)
    return _require_end(_append(task, messages, trio.current_time(), adapter))


def _parse(parse: Callable[[Body], Sequence[AnswerPart]], body: Body) -> Sequence[AnswerPart]:
    """Raises RelayFailure for what the adapter cannot parse."""
    try:
        return parse(body)
    except (ValueError, RecursionError) as error:
        message = f"the engine sent an answer that cannot be parsed: {error}"
        raise RelayFailure(FailureKind.ENGINE_ERROR, message) from error


def _append(task: Task, messages: Sequence[AnswerPart], now: float, adapter: EngineAdapter) -> Finished | None:
    """Append the engine's messages to the task; return its closing report, if any. Raises RelayFailure."""
    last = None
    if task.measurements.answered_at is None:
        task.measurements.answered_at = now
    for message in messages:
        if isinstance(message, StreamChunk):
            task.chunk(message.raw, message.tokens, now, usage=message.usage)
        elif isinstance(message, TextPiece):
            if message.text:
                task.token(message.text, now)
        elif isinstance(message, WholeAnswer):
            task.result(message.raw, now)
        elif isinstance(message, EngineRefusal):
            raise engine_refusal(classified(message, adapter.error_patterns), answer_started=task.answer_started)
        else:
            task.measurements.tokens_cached = message.cached
            last = last or message
    return last

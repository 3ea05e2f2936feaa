"""The relay: runs one task on one engine and appends what comes to the task's event log.

Owns the connection to the engine for as long as the task runs there; leaving it in any way closes the connection, which
is what frees the engine's slot. Every wait has a limit, and so has the answer.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import trio

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.nodes import RELAY_HEADER
from llama_orch.http.client.client import Response, Unreachable, UpstreamError, UpstreamTimeout, request
from llama_orch.http.client.sse import MalformedStream, read_events
from llama_orch.http.server.bodies import in_thread_if_large
from queen_rbee.dispatch.failure import Failure, refused, relay_failure
from queen_rbee.dispatch.hop import DIRECT, Hop
from queen_rbee.dispatch.rooms import clamped
from queen_rbee.dispatch.silence import Limits, Silence
from queen_rbee.engines.adapter import Chunk, Dialogue, EngineAdapter, Finished, Piece, Refused, Result, Said
from queen_rbee.engines.complaints import judged
from queen_rbee.pools.candidates import Candidate, served_name
from queen_rbee.tasks.task import Task

ANSWER_LIMIT = 64 << 20
"""Bytes of the largest answer; a stream is measured in characters. 1,000 embeddings of 4,096 numbers are as many."""
COMPLAINT_LIMIT = 64 << 10
IN_THREAD_BYTES = 256 << 10
REST_S = 0.02
OVERRUN = 64
"""So many pieces more than max_tokens may come; an engine that sends more does not know the limit, or not its end."""

Told = TypeVar("Told", str, bytes)


async def run(task: Task, target: Candidate, adapter: EngineAdapter, limits: Limits, hop: Hop = DIRECT) -> None:
    """Relay the engine's answer to `task` until it ends. Raises Failure; the caller decides what follows.

    The task ends last of all, when the connection is closed, and nothing is awaited behind that: its readers see the
    end when the caller has given the slot back, so that a session's next turn finds its replica free.
    """
    dialogue = await in_thread_if_large(task.size, partial(_dialogue, task, target, adapter))
    task.asked_at, task.heard_at = trio.current_time(), None
    silence = Silence(limits, task.size, task.asked_at)
    try:
        with silence.scope:
            last = await _ask_within_room(task, target, dialogue, adapter, silence, hop)
            task.end(last.tokens_in, last.tokens_out, trio.current_time())
            return
    except Unreachable as error:
        away = f"the engine is away: {error}"
        raise Failure(ErrorCode.WORKER_RESET, away, retriable=True, blame="replica", elsewhere=True) from error
    except UpstreamTimeout as error:
        raise Failure(ErrorCode.DECODE_TIMEOUT, f"the engine stalls: {error}", retriable=True) from error
    except (UpstreamError, MalformedStream) as error:
        lost = isinstance(error, UpstreamError)
        raise Failure(ErrorCode.WORKER_RESET, f"the engine broke off: {error}", retriable=True, lost=lost) from error
    words = f"the engine stalls: {silence.words(trio.current_time())}"
    raise Failure(ErrorCode.DECODE_TIMEOUT, words, retriable=True)


def _dialogue(task: Task, target: Candidate, adapter: EngineAdapter) -> Dialogue:
    try:
        return adapter.dialogue(task.request, task.passage, served_name(target, task.request.model_ref))
    except ValueError as error:
        raise Failure(ErrorCode.INVALID_PARAMS, str(error), retriable=False, blame="nobody") from error


async def _ask_within_room(
    task: Task, target: Candidate, dialogue: Dialogue, adapter: EngineAdapter, silence: Silence, hop: Hop
) -> Finished:
    """As `_ask`; an engine that refuses a max_tokens beyond its context is asked once more for what it has room for."""
    try:
        return await _ask(task, target, dialogue, adapter, silence, hop)
    except Failure as failure:
        smaller = clamped(task.passage, str(failure)) if task.passage and failure.quoted and not task.shown else None
        if smaller is None:
            raise
        task.passage = smaller
    return await _ask(task, target, _dialogue(task, target, adapter), adapter, silence, hop)


async def _ask(
    task: Task, target: Candidate, dialogue: Dialogue, adapter: EngineAdapter, silence: Silence, hop: Hop
) -> Finished:
    """Put the task to the engine and hear it out; its last word."""
    headers = {
        "content-type": "application/json",
        "x-correlation-id": task.correlation_id,
        **hop.headers(target, task.request),
    }
    if task.traceparent:
        headers["traceparent"] = task.traceparent
    async with request(
        "POST",
        target.url + dialogue.path,
        headers=headers,
        body=dialogue.body,
        connections=hop.connections if target.node_id else None,
        tls=hop.tls if target.node_id else None,
        connect_s=silence.limits.connect_s,
        head_s=float("inf"),  # the scope of `silence` bounds it
    ) as response:
        if target.node_id and (verdict := response.headers.get(RELAY_HEADER)):
            raise relay_failure(verdict, response.status, await _complaint(response, silence.limits.idle_s))
        if response.status != 200:
            raise refused(adapter.refusal(response.status, await _complaint(response, silence.limits.idle_s)))
        if dialogue.streamed:
            return await _stream(task, dialogue, response, silence, adapter)
        return await _whole(task, dialogue, response, adapter)


async def _complaint(response: Response, limit_s: float) -> bytes:
    """The beginning of an error's body. The status has said enough: whatever befalls the body changes nothing."""
    body = bytearray()
    with trio.move_on_after(limit_s), suppress(UpstreamError):
        async for chunk in response.chunks():
            body += chunk
            if len(body) > COMPLAINT_LIMIT:
                break
    return bytes(body[:COMPLAINT_LIMIT])


async def _stream(
    task: Task, dialogue: Dialogue, response: Response, silence: Silence, adapter: EngineAdapter
) -> Finished:
    """Append what comes to the task until the answer is complete."""
    room = ANSWER_LIMIT
    pieces = _most_pieces(task)
    chunks = response.chunks()
    async for event in read_events(chunks):
        room -= len(event.data)
        if room < 0:
            raise _too_much(f"its answer is longer than {ANSWER_LIMIT} characters")
        now = trio.current_time()
        shown = task.tokens_out
        last = _take(task, _understood(dialogue.event, event.data) if event.data else (), now, adapter)
        if last:
            await _rest(chunks)
            return last
        silence.heard(now, token=task.tokens_out > shown)
        if task.tokens_out > pieces:
            raise _too_much(f"max_tokens is {task.request.max_tokens}, and it goes on after {task.tokens_out} pieces")
    return _ended(_take(task, dialogue.closed(), trio.current_time(), adapter))


async def _rest(chunks: AsyncIterator[bytes]) -> None:
    """Read what an engine says behind its last word, for a moment: only so can a connection be kept, and the engine
    sees no client that leaves."""
    with trio.move_on_after(REST_S), suppress(UpstreamError):
        async for _nothing in chunks:
            pass


def _too_much(words: str) -> Failure:
    return Failure(ErrorCode.WORKER_RESET, f"the engine does not end: {words}", retriable=True)


def _most_pieces(task: Task) -> float:
    """How many pieces an answer may have. A chunk of an OpenAI stream is no measure: it may belong to one of several
    choices, or bring less than a token."""
    if task.passage or task.request.max_tokens is None:
        return float("inf")
    return task.request.max_tokens + OVERRUN


def _ended(last: Finished | None) -> Finished:
    if last is None:
        raise UpstreamError("the stream ended before the answer did")
    return last


async def _whole(task: Task, dialogue: Dialogue, response: Response, adapter: EngineAdapter) -> Finished:
    """Take an answer that comes in one piece; parsing a large one would hold up every other task."""
    body = await response.read(ANSWER_LIMIT)
    if len(body) < IN_THREAD_BYTES:
        found = _understood(dialogue.whole, body)
    else:
        found = await trio.to_thread.run_sync(_understood, dialogue.whole, body)
    return _ended(_take(task, found, trio.current_time(), adapter))


def _understood(read: Callable[[Told], Sequence[Said]], told: Told) -> Sequence[Said]:
    """What the engine says. Raises Failure where that is not understood."""
    try:
        return read(told)
    except (ValueError, RecursionError) as error:
        words = f"the engine says something that is not understood: {error}"
        raise Failure(ErrorCode.WORKER_RESET, words, retriable=True) from error


def _take(task: Task, found: Sequence[Said], now: float, adapter: EngineAdapter) -> Finished | None:
    """Append what is `found` to the task; the last word, if it is among it. Raises Failure."""
    last = None
    if task.heard_at is None:
        task.heard_at = now
    for said in found:
        if isinstance(said, Piece):
            if said.text:
                task.token(said.text, now)
        elif isinstance(said, Chunk):
            task.chunk(said.raw, said.tokens, now, usage=said.usage)
        elif isinstance(said, Result):
            task.result(said.raw, now)
        elif isinstance(said, Refused):
            raise refused(judged(said, adapter.complaints), begun=task.shown)
        else:
            task.tokens_cached = said.cached
            last = last or said
    return last

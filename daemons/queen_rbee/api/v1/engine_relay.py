"""Relay between /v1 clients and engines: admit the task, keep it from eviction while its client waits, send the answer.

Owns the tie between a client's connection and its task. However the handler ends (disconnect, error, stop), the task is
cancelled and the engine's connection closed. A `Dialect` defines what the answer looks like.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.server.exchange import ClientGone, Exchange
from llama_orch.http.server.preferences import applied
from llama_orch.telemetry.correlation import current, traceparent
from queen_rbee.api.streaming import KEEP_ALIVE_S, STREAM_HEADERS, cancel_when_gone
from queen_rbee.api.v1.failures import failure_of
from queen_rbee.api.v1.log_reader import TaskLogReader
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.intake.intake import Intake
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.event_log import Frame
from queen_rbee.tasks.task import Task

ANSWER_EVENTS = frozenset({"chunk", "usage", "result"})
"""Events that carry a piece of the engine's answer, as OpenAI's JSON."""

Headers = list[tuple[str, str]]


class Dialect(Protocol):
    """The format of one stream. Each stream has its own instance."""

    headers: Headers
    """Headers besides those that all streams have."""

    @property
    def keep_alive(self) -> bytes:
        """Sent after KEEP_ALIVE_S seconds of silence; evaluated when it is due."""
        ...

    def piece(self, frame: Frame) -> bytes:
        """Translate a piece of the answer (see ANSWER_EVENTS); b"" sends nothing."""
        ...

    def end(self) -> bytes:
        """Return what follows the last piece of a complete answer."""
        ...

    def failure(self, task: Task) -> bytes:
        """Return the end of a stream that fails midway."""
        ...


def _no_headers(_task: Task) -> Iterable[tuple[str, str]]:
    return ()


@dataclass(frozen=True)
class EngineRelay:
    """`more_headers` returns further headers for an answer, evaluated when the answer begins."""

    intake: Intake
    dispatcher: Dispatcher
    queue: AdmissionQueue[Task]
    registry: PoolRegistry
    more_headers: Callable[[Task], Iterable[tuple[str, str]]] = _no_headers

    def admit(self, request: TaskRequest, passage: Passage) -> Task:
        """Queue a task. Pass it to `stream` or `collect` before awaiting anything else. Raises ApiError."""
        return self.intake.admit(request, current.get() or "", traceparent.get(), passage)

    async def stream(self, exchange: Exchange, task: Task, dialect: Dialect) -> None:
        """Send the answer as server-sent events and end the stream.

        The stream opens with the first piece of the answer, or after KEEP_ALIVE_S seconds. A failure before that is
        raised as ApiError; a later one is sent by `Dialect.failure`. Raises ClientGone.
        """
        stream = _StreamWriter(exchange, TaskLogReader(self.queue, task), dialect, partial(self.headers, task))
        await self._accompany(exchange, task, stream.run)
        if not exchange.started:
            raise failure_of(task)

    async def collect(self, exchange: Exchange, task: Task, add: Callable[[Frame], object]) -> None:
        """Pass each piece of the answer (see ANSWER_EVENTS) to `add`; return when the answer is complete.

        Raises ApiError if the task fails, ClientGone.
        """
        await self._accompany(exchange, task, partial(_collect, TaskLogReader(self.queue, task), add))
        if task.error:
            raise failure_of(task)

    def headers(self, task: Task) -> Headers:
        """Return the headers whose values are known by now."""
        headers = [("x-queue-position", str(task.reported_position or 0)), *applied(task.request.wait_s)]
        if task.place.pool_id:
            headers.append(("x-llama-orch-pool", task.place.pool_id))
        if (overhead := task.measurements.overhead_ms) is not None:
            headers.append(("x-llama-orch-overhead-ms", f"{overhead:g}"))
        return [*headers, *self.more_headers(task)]

    async def _accompany(self, exchange: Exchange, task: Task, act: Callable[[], Awaitable[None]]) -> None:
        """Run `act` while the client is connected. It must not raise ApiError: exceptions leave in a group."""
        left = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_gone, exchange, nursery.cancel_scope)
                await act()
                left = False
                nursery.cancel_scope.cancel()
        finally:
            if not task.state.final:
                self.dispatcher.cancel(task, "client_left")
        if left:
            raise ClientGone


@dataclass
class _StreamWriter:
    exchange: Exchange
    reader: TaskLogReader
    dialect: Dialect
    headers: Callable[[], Headers]

    async def run(self) -> None:
        """Write until the task has ended. Open no stream for a task that fails before its first piece."""
        due = trio.current_time() + KEEP_ALIVE_S
        while not self.reader.done:
            data = b"".join(map(self._translate, await self.reader.read(due)))
            if not data and trio.current_time() >= due:
                data = self.dialect.keep_alive
            if data:
                await self._write(data)
                due = trio.current_time() + KEEP_ALIVE_S

    def _translate(self, frame: Frame) -> bytes:
        if frame.event in ANSWER_EVENTS:
            return self.dialect.piece(frame)
        if frame.event == "end":
            return self.dialect.end()
        return self.dialect.failure(self.reader.task) if frame.event == "error" else b""

    async def _write(self, data: bytes) -> None:
        if not self.exchange.started:
            if self.reader.task.error:
                return
            await self.exchange.open_stream(200, [*STREAM_HEADERS, *self.dialect.headers, *self.headers()])
        send = self.exchange.finish if self.reader.done else self.exchange.write
        await send(data)


async def _collect(reader: TaskLogReader, add: Callable[[Frame], object]) -> None:
    while not reader.done:
        for frame in await reader.read():
            if frame.event in ANSWER_EVENTS:
                add(frame)

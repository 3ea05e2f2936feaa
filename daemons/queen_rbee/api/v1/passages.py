"""What every /v1 API does with a request that it passes on to an engine: admit it, attend it, answer it.

Owns the tie between a client's connection and its task: a task is never left without its client. Whichever way the
handler ends, by the client's leaving, an error or a stop, the task is cancelled, and with it the engine's connection.
What the answer looks like is the API's own business: see `Dialect`.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import trio

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.server.exchange import ClientGone, Exchange
from llama_orch.telemetry.correlation import current, traceparent
from queen_rbee.api.streaming import KEEP_ALIVE_S, STREAM_HEADERS, until_gone
from queen_rbee.api.v1.failures import failure_of
from queen_rbee.api.v1.reader import Reader
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.intake.intake import Intake
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.event_log import Frame
from queen_rbee.tasks.task import Task

ANSWER = frozenset({"chunk", "usage", "result"})
"""The events that are pieces of the engine's answer; their payload is OpenAI's JSON."""

Fields = list[tuple[str, str]]


class Dialect(Protocol):
    """How one API writes one stream; made anew for each."""

    headers: Fields
    """Headers of the stream besides those that all streams have."""

    @property
    def keep_alive(self) -> bytes:
        """What is sent when nothing has been for KEEP_ALIVE_S seconds; asked for when it is due."""
        ...

    def piece(self, frame: Frame) -> bytes:
        """What the client gets to see of one piece of the answer (see ANSWER); b"" for nothing."""
        ...

    def end(self) -> bytes:
        """What follows the last piece of a complete answer."""
        ...

    def failure(self, task: Task) -> bytes:
        """The last words of a stream that fails midway; `failure_of(task)` is why."""
        ...


def _no_headers(_task: Task) -> Iterable[tuple[str, str]]:
    return ()


@dataclass(frozen=True)
class Passages:
    """`more_headers` are put on every answer, say what is left of a budget; asked when the answer begins."""

    intake: Intake
    dispatcher: Dispatcher
    queue: AdmissionQueue[Task]
    registry: PoolRegistry
    more_headers: Callable[[Task], Iterable[tuple[str, str]]] = _no_headers

    def admit(self, request: TaskRequest, passage: Passage) -> Task:
        """A task that waits now, to be given to `stream` or `collect` before anything else is awaited.

        Raises ApiError with why not.
        """
        return self.intake.admit(request, current.get() or "", traceparent.get(), passage)

    async def stream(self, exchange: Exchange, task: Task, dialect: Dialect) -> None:
        """Answer with a stream of server-sent events, and end it.

        It is opened with the first piece of the answer, or after KEEP_ALIVE_S seconds: what goes wrong before is raised
        as ApiError, later it is told by `Dialect.failure`. Raises ClientGone.
        """
        stream = _Stream(exchange, Reader(self.queue, task), dialect, partial(self.headers, task))
        await self._accompany(exchange, task, stream.run)
        if not exchange.started:
            raise failure_of(task)

    async def collect(self, exchange: Exchange, task: Task, take: Callable[[Frame], object]) -> None:
        """Return when the answer is complete, each of its pieces given to `take` as it came (see ANSWER).

        Raises ApiError where it fails, and ClientGone.
        """
        await self._accompany(exchange, task, partial(_collect, Reader(self.queue, task), take))
        if task.error:
            raise failure_of(task)

    def headers(self, task: Task) -> Fields:
        """What is known by now of where and how `task` runs."""
        found = [("x-queue-position", str(task.reported_position or 0))]
        if task.place.pool_id:
            found.append(("x-llama-orch-pool", task.place.pool_id))
        if (overhead := task.measurements.overhead_ms) is not None:
            found.append(("x-llama-orch-overhead-ms", f"{overhead:g}"))
        return [*found, *self.more_headers(task)]

    async def _accompany(self, exchange: Exchange, task: Task, act: Callable[[], Awaitable[None]]) -> None:
        """Run `act` while the client is there. What `act` raises arrives in a group: ApiError is not for it."""
        left = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_gone, exchange, nursery.cancel_scope)
                await act()
                left = False
                nursery.cancel_scope.cancel()
        finally:
            if not task.state.final:
                self.dispatcher.cancel(task, "client_left")
        if left:
            raise ClientGone


@dataclass
class _Stream:
    """One stream under way."""

    exchange: Exchange
    reader: Reader
    dialect: Dialect
    headers: Callable[[], Fields]

    async def run(self) -> None:
        """Write until the task has ended; open nothing for one that fails before it has said anything."""
        due = trio.current_time() + KEEP_ALIVE_S
        while not self.reader.done:
            data = b"".join(map(self._said, await self.reader.news(due)))
            if not data and trio.current_time() >= due:
                data = self.dialect.keep_alive
            if data:
                await self._write(data)
                due = trio.current_time() + KEEP_ALIVE_S

    def _said(self, frame: Frame) -> bytes:
        if frame.event in ANSWER:
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


async def _collect(reader: Reader, take: Callable[[Frame], object]) -> None:
    while not reader.done:
        for frame in await reader.news():
            if frame.event in ANSWER:
                take(frame)

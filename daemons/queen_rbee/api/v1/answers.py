"""How a /v1 client gets the pieces of an answer: as a stream, while they arrive, or collected.

What arrived together is sent together, at once. A client that reads slowly neither holds the engine's slot nor delays
others: what the kernel does not take waits here, and a task of its own sends it.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from llama_orch.contracts.tasks import TaskState
from llama_orch.http.server.exchange import Exchange
from queen_rbee.api.streaming import KEEP_ALIVE_S, STREAM_HEADERS, TOUCH_INTERVAL_S
from queen_rbee.dispatch.attendance import Attendance
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.tasks.task import Task

Headers = list[tuple[str, str]]


class Dialect(Protocol):
    """The format of one stream. Each stream has its own instance."""

    headers: Headers
    """Headers besides those that all streams have; a content type replaces theirs."""

    @property
    def keep_alive(self) -> bytes:
        """Sent after KEEP_ALIVE_S seconds of silence; evaluated when it is due."""
        ...

    def piece(self, event: str, data: str) -> bytes:
        """Translate a piece of the answer: `chunk`, `usage` or `result`, and its JSON. b"" sends nothing."""
        ...

    def end(self) -> bytes:
        """Return what follows the last piece of a complete answer."""
        ...

    def failure(self, task: Task) -> bytes:
        """Return the end of a stream that fails midway."""
        ...


class Answer(Protocol):
    """Takes the pieces of one answer in order."""

    def take(self, event: str, data: str) -> None: ...

    async def flush(self) -> None:
        """Send what was taken. Returns although a slow client has not got it yet."""
        ...

    def attend(self, now: float) -> float: ...


class CollectedAnswer:
    """An answer whose pieces go to `add`."""

    def __init__(self, task: Task, queue: AdmissionQueue[Task], add: Callable[[str, str], object]) -> None:
        self._task = task
        self._queue = queue
        self._add = add

    def take(self, event: str, data: str) -> None:
        self._add(event, data)

    async def flush(self) -> None:
        """There is nothing to send before the end."""

    def attend(self, now: float) -> float:
        """Keep the task from eviction while its client waits."""
        return _attend_queued(self._queue, self._task, now)


class StreamedAnswer:
    """An answer as server-sent events. One task at a time writes to the client: `_writing` tells whether one does."""

    def __init__(
        self,
        task: Task,
        queue: AdmissionQueue[Task],
        exchange: Exchange,
        dialect: Dialect,
        headers: Callable[[], Headers],
        attendance: Attendance,
    ) -> None:
        self._task = task
        self._queue = queue
        self._exchange = exchange
        self._dialect = dialect
        self._headers = headers
        self._attendance = attendance
        self._pieces: list[bytes] = []
        self._writing = False
        self._written = trio.Event()
        self._scope = trio.CancelScope()
        self._due = trio.current_time() + KEEP_ALIVE_S

    def take(self, event: str, data: str) -> None:
        """Keep a piece for the next flush."""
        self._pieces.append(self._dialect.piece(event, data))

    async def flush(self) -> None:
        """Send the pieces, opening the stream if need be; leave the rest to a task of its own."""
        if self._writing or not any(self._pieces):
            return
        if not self._exchange.started:
            self._writing = True
            try:
                await self._open()
            finally:
                self._writing = False
        self._due = trio.current_time() + KEEP_ALIVE_S
        if not self._exchange.writes_now or not self._exchange.write_now(self._taken()):
            self._start_writer()

    async def end(self) -> bool:
        """Send the rest and end the stream; False, and nothing sent, if the task failed before its first piece."""
        while self._writing:
            await self._written.wait()
        if not self._exchange.started:
            if self._task.error and not any(self._pieces):
                return False
            await self._open()
        last = self._dialect.failure(self._task) if self._task.error else self._dialect.end()
        await self._exchange.finish(self._taken() + last)
        return True

    def close(self) -> None:
        """Send nothing more."""
        self._scope.cancel()

    def attend(self, now: float) -> float:
        """Keep a waiting task from eviction, and a silent connection open."""
        if now >= self._due and not self._task.log.closed:
            self._due = now + KEEP_ALIVE_S
            if not self._writing:
                self._start_writer(self._keep_alive)
        return min(self._due, _attend_queued(self._queue, self._task, now))

    def _taken(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    async def _open(self) -> None:
        own = self._dialect.headers
        common = [each for each in STREAM_HEADERS if each[0] not in dict(own)] if own else STREAM_HEADERS
        await self._exchange.open_stream(200, [*common, *own, *self._headers()])

    def _start_writer(self, write: Callable[[], Awaitable[None]] | None = None) -> None:
        self._writing, self._scope = True, trio.CancelScope()
        self._attendance.start(write or self._write_rest)

    async def _keep_alive(self) -> None:
        self._pieces.append(self._dialect.keep_alive)
        await self._write_rest()

    async def _write_rest(self) -> None:
        """Write until the client has everything that was taken meanwhile."""
        try:
            with self._scope:
                if not self._exchange.started:
                    await self._open()
                await self._exchange.write(self._taken())
                while self._pieces:
                    await self._exchange.write(self._taken())
        finally:
            self._writing = False
            written, self._written = self._written, trio.Event()
            written.set()


def _attend_queued(queue: AdmissionQueue[Task], task: Task, now: float) -> float:
    if task.state is not TaskState.QUEUED:
        return float("inf")
    queue.attend(task)
    return now + TOUCH_INTERVAL_S

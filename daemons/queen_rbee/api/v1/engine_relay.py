"""Relay between /v1 clients and engines: admit the task, keep it from eviction while its client waits, send the answer.

Owns the tie between a client's connection and its task. However the handler ends (disconnect, error, stop), the task is
cancelled and the engine's connection closed. `answers.py` has what the client gets.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.server.exchange import ClientGone, Exchange
from llama_orch.http.server.preferences import applied
from llama_orch.telemetry.correlation import current, traceparent
from queen_rbee.api.v1.answers import Answer, CollectedAnswer, Dialect, Headers, StreamedAnswer
from queen_rbee.api.v1.failures import failure_of
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.intake.intake import Intake
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.direct_answer import DirectAnswer
from queen_rbee.tasks.task import Task


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
        return self.intake.admit(request, current.get() or "", traceparent.get(), passage, answer=DirectAnswer())

    async def stream(self, exchange: Exchange, task: Task, dialect: Dialect) -> None:
        """Send the answer as server-sent events and end the stream.

        The stream opens with the first piece of the answer, or after KEEP_ALIVE_S seconds. A failure before that is
        raised as ApiError; a later one is sent by `Dialect.failure`. Raises ClientGone.
        """
        headers = partial(self.headers, task)
        answer = StreamedAnswer(task, self.queue, exchange, dialect, headers, self.dispatcher.attendance)
        try:
            await self._accompany(exchange, task, answer)
            if not await answer.end():
                raise failure_of(task)
        finally:
            answer.close()

    async def collect(self, exchange: Exchange, task: Task, add: Callable[[str, str], object]) -> None:
        """Pass each piece of the answer to `add`: `chunk`, `usage` or `result`, and its JSON.

        Return when the answer is complete. Raises ApiError if the task fails, ClientGone.
        """
        await self._accompany(exchange, task, CollectedAnswer(task, self.queue, add))
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

    async def _accompany(self, exchange: Exchange, task: Task, answer: Answer) -> None:
        """Run `task` while the client is connected; its pieces go to `answer`. Exceptions may leave in a group.

        Raises ClientGone, and what `answer` raises.
        """
        gone = False

        def left() -> None:
            nonlocal gone
            gone = True
            self.dispatcher.cancel(task, "client_left")

        def take(event: str, data: str) -> None:
            try:
                answer.take(event, data)
            except Exception as error:  # a defect here is no failure of the engine
                defects.append(error)
                self.dispatcher.cancel(task, "client_left")

        async def run() -> None:
            await self.dispatcher.accompany(task)
            if defects:
                raise defects[0]

        assert task.answer, "the task was not admitted by this relay"
        defects: list[Exception] = []
        task.answer.take, task.answer.flush = take, answer.flush
        self.dispatcher.attendance.add(answer)
        try:
            await exchange.accompany(run, left)
        finally:
            self.dispatcher.attendance.remove(answer)
            task.answer.release()
        if gone:
            raise ClientGone

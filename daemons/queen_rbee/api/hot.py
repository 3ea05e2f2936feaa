"""The hot paths: POST /v2/tasks, its event stream, and cancel."""

from collections.abc import Mapping

import trio
from pydantic import ValidationError

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.http.exchange import Exchange, HotRoutes
from llama_orch.telemetry.correlation import current, traceparent
from queen_rbee.dispatcher import Dispatcher
from queen_rbee.intake import Intake, invalid, task_id_of, unknown_task
from queen_rbee.task import Task

KEEP_ALIVE_S = 15.0
COALESCE_S = 0.004
"""Tokens that come closer together are sent in one piece. The first one never waits; nobody sees the others do, and a
fast engine's stream costs a third."""
STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-store"),
    ("x-accel-buffering", "no"),
)


class HotHandlers:
    """Handlers over one dispatcher and its intake."""

    def __init__(self, dispatcher: Dispatcher, intake: Intake) -> None:
        self._dispatcher = dispatcher
        self._intake = intake

    def routes(self) -> HotRoutes:
        """The table that the gate looks into before Quart."""
        routes = HotRoutes()
        routes.add("POST", "/v2/tasks", self.submit)
        routes.add("GET", "/v2/tasks/{task_id}/events", self.events)
        routes.add("POST", "/v2/tasks/{task_id}/cancel", self.cancel)
        return routes

    async def submit(self, exchange: Exchange) -> None:
        """202 with where the task stands, or why not."""
        request = _parsed(await exchange.body())
        _task, answer = self._intake.submit(request, current.get() or "", traceparent.get())
        headers = [("x-queue-position", str(answer.queue_position)), ("content-type", "application/json")]
        await exchange.send(202, answer.model_dump_json().encode(), headers)

    async def events(self, exchange: Exchange) -> None:
        """The task's events as they come, from behind Last-Event-ID on."""
        task = self._known(exchange)
        last_id = _last_event_id(exchange.headers)
        headers = [*STREAM_HEADERS]
        if task.pool_id:
            headers.append(("x-llama-orch-pool", task.pool_id))
        await exchange.body()
        await exchange.open_stream(200, headers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, exchange, nursery.cancel_scope)
            await self._send_events(exchange, task, last_id)
            nursery.cancel_scope.cancel()

    async def _send_events(self, exchange: Exchange, task: Task, last_id: int) -> None:
        verbose = exchange.query.get("verbose", "").lower() in ("true", "1")
        while True:
            self._dispatcher.queue.attend(task, trio.current_time())
            data, last_id = task.log.after(last_id, verbose)
            if task.log.closed:
                await exchange.finish(data)
                return
            if data:
                await exchange.write(data)
            if task.first_token_at is not None:
                await trio.sleep(COALESCE_S)
            with trio.move_on_after(KEEP_ALIVE_S) as waiting:
                await task.log.wait_beyond(last_id)
            if waiting.cancelled_caught:
                await exchange.write(b": keep-alive\n\n")

    async def cancel(self, exchange: Exchange) -> None:
        """204, also when the task has already ended."""
        task = self._known(exchange)
        await exchange.body()
        self._dispatcher.cancel(task)
        await exchange.send(204)

    def _known(self, exchange: Exchange) -> Task:
        text = exchange.variables["task_id"]
        task = self._dispatcher.book.get(task_id_of(text))
        if task is None:
            raise unknown_task(text)
        return task


async def _until_gone(exchange: Exchange, scope: trio.CancelScope) -> None:
    await exchange.gone()
    scope.cancel()


def _parsed(body: bytes) -> TaskRequest:
    """The request in `body`. Raises ApiError 400 that names each wrong field."""
    try:
        return TaskRequest.model_validate_json(body)
    except ValidationError as error:
        raise ApiError(400, invalid(_problem(item["loc"], item["msg"]) for item in error.errors())) from error


def _problem(location: tuple[int | str, ...], message: str) -> tuple[str, str]:
    words = message.removeprefix("Value error, ").replace("Extra inputs are not permitted", "is not a known field")
    return ".".join(map(str, location)) or "body", words.replace("Input should be", "must be")


def _last_event_id(headers: Mapping[str, str]) -> int:
    """The id after which the client wants to go on; anything that is no id means from the start."""
    text = headers.get("last-event-id", "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0

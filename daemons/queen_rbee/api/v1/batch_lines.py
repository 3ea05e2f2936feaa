"""Answer the requests of batches: through the same queue and placement as those of clients, at batch priority."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic_core import to_json

from llama_orch.contracts.batches import BatchLine, Url
from llama_orch.contracts.errors import ApiError
from llama_orch.engines.wire.passage import Endpoint
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.error_shapes import error_answer
from llama_orch.telemetry import correlation
from queen_rbee.api.v1.failures import failure_of
from queen_rbee.api.v1.openai import OpenAiAnswer, with_client_fields
from queen_rbee.api.v1.openai_requests import parse_request, task_request
from queen_rbee.batches.share import Load
from queen_rbee.batches.work import LineAnswer
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.intake.intake import Intake
from queen_rbee.pools.model_lookup import ModelCatalog, find_target
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.tasks.task import Task

ENDPOINTS: Mapping[Url, Endpoint] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}
PIECES = frozenset({"chunk", "usage", "result"})
SHORTEST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


@dataclass(frozen=True)
class BatchLines:
    """Runs one request after the other; each is a task whose client is the batch."""

    intake: Intake
    dispatcher: Dispatcher
    queue: AdmissionQueue[Task]
    registry: PoolRegistry
    catalog: ModelCatalog

    def load(self, ours: int) -> Load:
        """Return what the decision to start more depends on."""
        free = self.registry.replicas.slots_open
        return Load(free + self.registry.leased, free, self.queue.depth("interactive"), ours, self.queue.capacity // 4)

    async def execute(self, url: Url, line: BatchLine) -> LineAnswer:
        """Answer one request. Cancelling it cancels the task."""
        identifier = correlation.accepted(None)
        try:
            body = await self._answered(ENDPOINTS[url], line, identifier)
        except ApiError as error:
            answer = error_answer(error, url, identifier)
            wait_s = (error.body.retry_after_ms or 0) / 1000
            retry_s = min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, wait_s)) if error.body.retriable else None
            return LineAnswer(answer.status, to_json(answer.body), identifier, retry_s)
        return LineAnswer(200, body, identifier)

    async def _answered(self, endpoint: Endpoint, line: BatchLine, identifier: str) -> bytes:
        """Return the answer as JSON. Raises ApiError."""
        request = parse_request(endpoint, to_json(line.body))
        if request.streamed:
            raise ApiError(400, invalid([("stream", "must not be true in a batch")]))
        try:
            target = find_target(request.parsed.model, self.catalog, self.registry.replicas, self.registry.synced)
            wanted = task_request(request.parsed, endpoint, target, {"x-priority": "batch"})
            task = self.intake.admit(wanted, identifier, None, request.passage)
        except ApiError as error:
            raise with_client_fields(error) from error
        document = OpenAiAnswer()
        try:
            await _collect(task, document)
        finally:
            if not task.state.final:
                self.dispatcher.cancel(task, "client_left")
        body = document.body()
        if task.error or body is None:
            raise failure_of(task)
        return body


async def _collect(task: Task, document: OpenAiAnswer) -> None:
    """Add the pieces of the answer to `document` until the task has ended."""
    last = 0
    while True:
        await task.log.wait_beyond(last)
        for frame in task.log.frames(last):
            if frame.event in PIECES:
                document.add(frame.event, frame.payload.decode())
        last = task.log.last_id
        if task.log.closed:
            return

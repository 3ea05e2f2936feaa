"""/v1 for OpenAI's clients: chat and text completions, embeddings, rerank.

The body goes to the engine and its answer comes back as they are, through the queue and placement that all tasks have.
"""

from collections.abc import Mapping
from functools import partial

from llama_orch.contracts.errors import ApiError, FieldProblem
from llama_orch.engines.wire.passage import Endpoint
from llama_orch.http.server.bodies import in_thread_if_large
from llama_orch.http.server.error_shapes import openai_error
from llama_orch.http.server.exchange import Exchange, HotRoutes
from queen_rbee.api.v1.assembling import Assembly
from queen_rbee.api.v1.failures import failure_of
from queen_rbee.api.v1.openai_requests import NAMES, SHAPE, Asked, asked, task_request
from queen_rbee.api.v1.passages import Fields, Passages
from queen_rbee.pools.model_lookup import ModelCatalog, find_target
from queen_rbee.tasks.event_log import Frame, encode_json
from queen_rbee.tasks.task import Task

PATHS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v2/rerank": "rerank",
    "/rerank": "rerank",
}
JSON = ("content-type", "application/json")
DATA = b"\ndata: "


def add_openai(routes: HotRoutes, passages: Passages, catalog: ModelCatalog) -> None:
    """Add the endpoints that engines answer; see `queen_rbee.api.v1.models` for the list of models."""
    handlers = OpenAi(passages, catalog)
    for path, endpoint in PATHS.items():
        routes.add("POST", path, partial(handlers.serve, endpoint))


class OpenAi:
    """Handlers over the queen's one way to engines."""

    def __init__(self, passages: Passages, catalog: ModelCatalog) -> None:
        self._passages = passages
        self._catalog = catalog

    async def serve(self, endpoint: Endpoint, exchange: Exchange) -> None:
        """One request, from its body to the end of its answer."""
        body = await exchange.body(shape=SHAPE)
        request = await in_thread_if_large(len(body), partial(asked, endpoint, body))
        del body
        try:
            task = self._admitted(request, exchange.headers)
            if request.streamed:
                await self._passages.stream(exchange, task, Stream(request.tells_usage))
            else:
                await self._whole(exchange, task)
        except ApiError as error:
            raise in_clients_words(error) from error

    def _admitted(self, request: Asked, headers: Mapping[str, str]) -> Task:
        registry = self._passages.dispatcher.registry
        target = find_target(request.wanted.model, self._catalog, registry.replicas, registry.synced)
        wanted = task_request(request.wanted, request.passage.endpoint, target, headers)
        return self._passages.admit(wanted, request.passage)

    async def _whole(self, exchange: Exchange, task: Task) -> None:
        answer = Whole()
        await self._passages.collect(exchange, task, answer.take)
        body = answer.body()
        if body is None:
            raise failure_of(task)
        await exchange.send(200, body, [*self._passages.headers(task), JSON])


class Whole:
    """An answer in one document: as it came, or put together from a stream."""

    def __init__(self) -> None:
        self._result: bytes | None = None
        self._assembly = Assembly()

    def take(self, frame: Frame) -> None:
        """The next piece."""
        if frame.event == "result":
            self._result = frame.payload
        else:
            self._assembly.take_json(frame.payload)

    def body(self) -> bytes | None:
        """The document, None where nothing has come."""
        if self._result is not None or self._assembly.empty:
            return self._result
        return encode_json(self._assembly.document()).encode()


class Stream:
    """An answer as OpenAI streams it: the engine's chunks, without the names and ids that /v2 gives them."""

    keep_alive = b": keep-alive\n\n"
    headers: Fields = []

    def __init__(self, tells_usage: bool) -> None:
        self._tells_usage = tells_usage

    def piece(self, frame: Frame) -> bytes:
        """The chunk as it came; the one with the counts only for those who asked for it."""
        if frame.event == "usage" and not self._tells_usage:
            return b""
        return frame.data[frame.data.index(DATA) + 1 :]

    def end(self) -> bytes:
        """The mark that clients wait for."""
        return b"data: [DONE]\n\n"

    def failure(self, task: Task) -> bytes:
        """An error in place of the next chunk, as clients look for it; no mark follows."""
        error = failure_of(task)
        return f"data: {encode_json(openai_error(error.status, error.body))}\n\n".encode()


def in_clients_words(error: ApiError) -> ApiError:
    """`error` with the names that OpenAI's clients have for the fields of a task."""
    if not error.body.fields:
        return error
    fields = [FieldProblem(field=NAMES.get(item.field, item.field), problem=item.problem) for item in error.body.fields]
    return ApiError(error.status, error.body.model_copy(update={"fields": fields}), error.headers)

"""Routes of the OpenAI API that engines answer: chat and text completions, embeddings, rerank.

The body goes to the engine and the answer to the client unchanged, through the same queue and placement as every task.
"""

from collections.abc import Mapping
from functools import partial

from pydantic import JsonValue

from llama_orch.contracts.errors import ApiError, FieldProblem
from llama_orch.contracts.openai import Chat, Completions, Embeddings, Rerank
from llama_orch.engines.wire.passage import Endpoint
from llama_orch.http.server.bodies import in_thread_if_large
from llama_orch.http.server.error_shapes import openai_error
from llama_orch.http.server.exchange import Exchange
from queen_rbee.api.v1.answers import Headers
from queen_rbee.api.v1.assembly import AnswerAssembly
from queen_rbee.api.v1.engine_relay import EngineRelay
from queen_rbee.api.v1.engine_routes import engine_route, with_streamed
from queen_rbee.api.v1.failures import failure_of
from queen_rbee.api.v1.openai_requests import CLIENT_FIELDS, SHAPE, OpenAiRequest, parse_request, task_request
from queen_rbee.pools.model_lookup import ModelCatalog, find_target
from queen_rbee.tasks.event_log import encode_json
from queen_rbee.tasks.task import Task

CONTENT_TYPE = ("content-type", "application/json")

CHAT: Mapping[str, JsonValue] = {
    "model": "default",
    "messages": [{"role": "user", "content": "Who are you?"}],
    "max_tokens": 40,
}
COMPLETION: Mapping[str, JsonValue] = {"model": "default", "prompt": "The queen", "max_tokens": 40}
EMBEDDINGS: Mapping[str, JsonValue] = {"two": {"model": "default", "input": ["The queen", "The bees"]}}
RERANK: Mapping[str, JsonValue] = {
    "two": {"model": "default", "query": "Who reigns?", "documents": ["The queen", "The bees"]}
}


class OpenAiRoutes:
    def __init__(self, relay: EngineRelay, catalog: ModelCatalog) -> None:
        self._relay = relay
        self._catalog = catalog

    @engine_route(
        "/v1/chat/completions",
        "Create a chat completion",
        Chat,
        with_streamed(CHAT, stream_options={"include_usage": True}),
        "ChatCompletion",
        "OPENAI_EVENT",
    )
    async def chat(self, exchange: Exchange) -> None:
        await self._serve("chat", exchange)

    @engine_route(
        "/v1/completions",
        "Create a text completion",
        Completions,
        with_streamed(COMPLETION),
        "TextCompletion",
        "OPENAI_EVENT",
    )
    async def complete(self, exchange: Exchange) -> None:
        await self._serve("completions", exchange)

    @engine_route("/v1/embeddings", "Create embeddings", Embeddings, EMBEDDINGS, "EmbeddingList")
    async def embed(self, exchange: Exchange) -> None:
        await self._serve("embeddings", exchange)

    # clients of Jina's, Cohere's and TEI's APIs use the other two paths
    @engine_route("/v1/rerank", "Rank documents by their relevance to a query", Rerank, RERANK, "Ranking")
    @engine_route("/v2/rerank", "Same as POST /v1/rerank", Rerank, RERANK, "Ranking", name="rerank_v2")
    @engine_route("/rerank", "Same as POST /v1/rerank", Rerank, RERANK, "Ranking", name="rerank_bare")
    async def rerank(self, exchange: Exchange) -> None:
        await self._serve("rerank", exchange)

    async def _serve(self, endpoint: Endpoint, exchange: Exchange) -> None:
        body = await exchange.body(shape=SHAPE)
        request = await in_thread_if_large(len(body), partial(parse_request, endpoint, body))
        del body
        try:
            task = self._admit(request, exchange.headers)
            if request.streamed:
                await self._relay.stream(exchange, task, OpenAiDialect(request.wants_usage))
            else:
                await self._send_document(exchange, task)
        except ApiError as error:
            raise with_client_fields(error) from error

    def _admit(self, request: OpenAiRequest, headers: Mapping[str, str]) -> Task:
        registry = self._relay.dispatcher.registry
        target = find_target(request.parsed.model, self._catalog, registry.replicas, registry.synced)
        task = task_request(request.parsed, request.passage.endpoint, target, headers)
        return self._relay.admit(task, request.passage)

    async def _send_document(self, exchange: Exchange, task: Task) -> None:
        document = OpenAiAnswer()
        await self._relay.collect(exchange, task, document.add)
        body = document.body()
        if body is None:
            raise failure_of(task)
        await exchange.send(200, body, [*self._relay.headers(task), CONTENT_TYPE])


class OpenAiAnswer:
    """An answer as one document: the engine's own, or assembled from the chunks of a stream."""

    def __init__(self) -> None:
        self._result: bytes | None = None
        self._assembly = AnswerAssembly()

    def add(self, event: str, data: str) -> None:
        if event == "result":
            self._result = data.encode()
        else:
            self._assembly.add_json(data)

    def body(self) -> bytes | None:
        """Return the document as JSON, or None if the engine has sent nothing."""
        if self._result is not None or self._assembly.empty:
            return self._result
        return encode_json(self._assembly.document()).encode()


class OpenAiDialect:
    """The Dialect of OpenAI's streams: the engine's chunks, without the event names and ids of /v2."""

    keep_alive = b": keep-alive\n\n"
    headers: Headers = []

    def __init__(self, wants_usage: bool) -> None:
        self._wants_usage = wants_usage

    def piece(self, event: str, data: str) -> bytes:
        """Return the chunk unchanged. The usage chunk is only for clients that asked for it."""
        if event == "usage" and not self._wants_usage:
            return b""
        return f"data: {data}\n\n".encode()

    def end(self) -> bytes:
        return b"data: [DONE]\n\n"

    def failure(self, task: Task) -> bytes:
        """Return an error object in place of the next chunk. No [DONE] follows it."""
        error = failure_of(task)
        return f"data: {encode_json(openai_error(error.status, error.body))}\n\n".encode()


def with_client_fields(error: ApiError) -> ApiError:
    """Return `error` with task fields renamed to those that the client has sent."""
    if not error.body.fields:
        return error
    fields = [
        FieldProblem(field=CLIENT_FIELDS.get(item.field, item.field), problem=item.problem)
        for item in error.body.fields
    ]
    return ApiError(error.status, error.body.model_copy(update={"fields": fields}), error.headers)

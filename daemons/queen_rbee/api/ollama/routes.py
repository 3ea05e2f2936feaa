"""Routes of Ollama's API that engines answer: chat, generate, embed. Engines are asked by OpenAI's API.

The translation is imported with the first request.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import JsonValue

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.openai import EndpointRequest, GenerationRequest
from llama_orch.engines.wire.passage import Endpoint, Passage
from llama_orch.http.server.bodies import in_thread_if_large
from llama_orch.http.server.error_shapes import ollama_error
from llama_orch.http.server.exchange import Exchange
from queen_rbee.api.ollama.connected import while_connected
from queen_rbee.api.ollama.declared import NDJSON, engine_route
from queen_rbee.api.ollama.loads import ModelLoads
from queen_rbee.api.ollama.names import find_model
from queen_rbee.api.v1.answers import Headers
from queen_rbee.api.v1.engine_relay import EngineRelay
from queen_rbee.api.v1.failures import failure_of
from queen_rbee.api.v1.openai_requests import SHAPE, task_request
from queen_rbee.pools.model_lookup import ModelCatalog, ModelTarget
from queen_rbee.tasks.event_log import encode_json
from queen_rbee.tasks.task import Task

if TYPE_CHECKING:
    from queen_rbee.api.ollama.lines import Kind
    from queen_rbee.api.ollama.pieces import Piece, Translator
    from queen_rbee.api.ollama.request import ChatRequest, GenerateRequest, GenerationFields, ModelRequest

    Request = TypeVar("Request", bound=ModelRequest)

CHAT: Mapping[str, JsonValue] = {"model": "default", "messages": [{"role": "user", "content": "Who are you?"}]}
GENERATE: Mapping[str, JsonValue] = {"model": "default", "prompt": "Who are you?", "options": {"num_predict": 40}}
UNREADABLE_ANSWER = "the engine sent an answer that is not in OpenAI's format"


class OllamaRoutes:
    def __init__(self, relay: EngineRelay, catalog: ModelCatalog, loads: ModelLoads) -> None:
        self._relay = relay
        self._catalog = catalog
        self._loads = loads

    @engine_route(
        "/api/chat",
        "Create a chat completion (Ollama's API)",
        "ChatRequest",
        {"streamed": {**CHAT}, "whole": {**CHAT, "stream": False}, "load": {"model": "default", "messages": []}},
        "OllamaChat",
    )
    async def ollama_chat(self, exchange: Exchange) -> None:
        from queen_rbee.api.ollama.chat_request import chat_body
        from queen_rbee.api.ollama.pieces import ChatTranslator
        from queen_rbee.api.ollama.request import ChatRequest

        request, body, mark, size = await _parse(exchange, ChatRequest, chat_body)
        if request.empty:
            await self._load(exchange, "chat", request)
            return
        task = self._admit(exchange, request, Passage("chat", body, size, mark=mark))
        translator = ChatTranslator(task.task_id.hex, thoughts=request.think is not False)
        await self._answer(exchange, task, "chat", request, translator)

    @engine_route(
        "/api/generate",
        "Create a completion (Ollama's API)",
        "GenerateRequest",
        {"streamed": {**GENERATE}, "whole": {**GENERATE, "stream": False}, "unload": {"model": "m", "keep_alive": 0}},
        "OllamaGeneration",
    )
    async def ollama_generate(self, exchange: Exchange) -> None:
        from queen_rbee.api.ollama.chat_request import generation_body
        from queen_rbee.api.ollama.pieces import ChatTranslator, TextTranslator
        from queen_rbee.api.ollama.request import GenerateRequest

        request, body, mark, size = await _parse(exchange, GenerateRequest, generation_body)
        if request.empty:
            await self._load(exchange, "generate", request)
            return
        endpoint: Endpoint = "completions" if request.raw else "chat"
        task = self._admit(exchange, request, Passage(endpoint, body, size, mark=mark))
        thoughts = request.think is not False
        translator = TextTranslator() if request.raw else ChatTranslator(task.task_id.hex, thoughts=thoughts)
        await self._answer(exchange, task, "generate", request, translator)

    @engine_route(
        "/api/embed",
        "Create embeddings (Ollama's API)",
        "EmbedRequest",
        {"two": {"model": "default", "input": ["The queen", "The bees"]}},
        "OllamaEmbeddings",
    )
    async def ollama_embed(self, exchange: Exchange) -> None:
        from queen_rbee.api.ollama.embeddings import embed_body
        from queen_rbee.api.ollama.lines import embedding_figures
        from queen_rbee.api.ollama.request import EmbedRequest

        request, body, mark, size = await _parse(exchange, EmbedRequest, embed_body)
        if not request.input:
            await self._wait_for_load(exchange, request.model, request.keep_alive)
            await exchange.send_json(200, {"model": request.model, "embeddings": []})
            return
        task = self._admit_embedding(
            exchange, request, request.keep_alive, Passage("embeddings", body, size, mark=mark)
        )
        vectors = await self._vectors(exchange, task, request.dimensions)
        figures = embedding_figures(task.measurements)
        answer = {"model": request.model, "embeddings": vectors, **figures}
        await exchange.send_json(200, answer, self._relay.headers(task))

    @engine_route(
        "/api/embeddings",
        "Create one embedding (Ollama's API, superseded by POST /api/embed)",
        "EmbeddingsRequest",
        {"one": {"model": "default", "prompt": "The queen"}},
        "OllamaEmbedding",
    )
    async def ollama_embeddings(self, exchange: Exchange) -> None:
        from queen_rbee.api.ollama.embeddings import embedding_body
        from queen_rbee.api.ollama.request import EmbeddingsRequest

        request, body, mark, size = await _parse(exchange, EmbeddingsRequest, embedding_body)
        if not request.prompt:
            await self._wait_for_load(exchange, request.model, request.keep_alive)
            await exchange.send_json(200, {"embedding": []})
            return
        task = self._admit_embedding(
            exchange, request, request.keep_alive, Passage("embeddings", body, size, mark=mark)
        )
        vectors = await self._vectors(exchange, task, None)
        await exchange.send_json(200, {"embedding": vectors[0] if vectors else []}, self._relay.headers(task))

    def _find(self, name: str) -> tuple[str, ModelTarget]:
        return find_model(name, self._catalog, self._relay.registry)

    def _admit(self, exchange: Exchange, request: "GenerationFields", passage: Passage) -> Task:
        from queen_rbee.api.ollama.options import max_tokens

        name, target = self._find(request.model)
        seed = request.options.seed if request.options else None
        generation = GenerationRequest(
            model=name, max_tokens=max_tokens(request.options), seed=seed, keep_alive=request.keep_alive
        )
        return self._relay.admit(task_request(generation, passage.endpoint, target, exchange.headers), passage)

    def _admit_embedding(
        self, exchange: Exchange, request: "ModelRequest", keep_alive: float | None, passage: Passage
    ) -> Task:
        name, target = self._find(request.model)
        task = task_request(EndpointRequest(model=name, keep_alive=keep_alive), "embeddings", target, exchange.headers)
        return self._relay.admit(task, passage)

    async def _answer(
        self, exchange: Exchange, task: Task, kind: "Kind", request: "GenerationFields", translator: "Translator"
    ) -> None:
        from queen_rbee.api.ollama.pieces import joined

        dialect = OllamaDialect(kind, request.model, task, translator)
        if request.streamed:
            await self._relay.stream(exchange, task, dialect)
            return
        pieces: list[Piece] = []
        await self._relay.collect(exchange, task, lambda _event, data: pieces.append(translator.add(data)))
        pieces.append(translator.end())
        if not translator.ending.valid:
            raise _unreadable(task)
        await exchange.send_json(200, dialect.last(joined(pieces)), self._relay.headers(task))

    async def _vectors(self, exchange: Exchange, task: Task, dimensions: int | None) -> list[list[float]]:
        from queen_rbee.api.ollama.embeddings import vectors_of

        documents: list[str] = []
        await self._relay.collect(exchange, task, lambda _event, data: documents.append(data))
        try:
            make = partial(vectors_of, documents[-1] if documents else "", dimensions)
            return await in_thread_if_large(sum(map(len, documents)), make)
        except ValueError as error:
            raise _unreadable(task) from error

    async def _load(self, exchange: Exchange, kind: "Kind", request: "ChatRequest | GenerateRequest") -> None:
        from queen_rbee.api.ollama.lines import load_line

        reason: Literal["load", "unload"] = "load"
        if request.keep_alive == 0:
            reason = "unload"
            self._loads.unload(self._target(exchange, request.model))
        else:
            await self._wait_for_load(exchange, request.model, request.keep_alive)
        await exchange.send_json(200, load_line(kind, request.model, datetime.now(UTC), reason))

    async def _wait_for_load(self, exchange: Exchange, name: str, keep_alive: float | None) -> None:
        """Wait for the load while the client is connected. Raises ApiError, ClientGone."""
        target = self._target(exchange, name)
        await while_connected(exchange, partial(self._loads.load, target, keep_alive))

    def _target(self, exchange: Exchange, name: str) -> ModelTarget:
        """Return what `name` selects. Raises ApiError also for headers that a task could not have."""
        known, target = self._find(name)
        task_request(EndpointRequest(model=known), "chat", target, exchange.headers)
        return target


async def _parse(
    exchange: Exchange, model: "type[Request]", translate: "Callable[[Request], dict[str, JsonValue]]"
) -> "tuple[Request, dict[str, JsonValue], bytes, int]":
    """Read the request and translate it; return both, the digest of the client's body, and its size."""
    from queen_rbee.api.ollama.request import parse

    body = await exchange.body(shape=SHAPE)

    def parse_and_translate() -> "tuple[Request, dict[str, JsonValue], bytes, int]":
        request = parse(model, body)
        return request, translate(request), sha256(body).digest(), len(body)

    return await in_thread_if_large(len(body), parse_and_translate)


class OllamaDialect:
    """The Dialect of Ollama's streams: a JSON object in each line."""

    headers: Headers = [("content-type", NDJSON)]
    keep_alive = b" "
    """Space before the next object: clients parse each line, so an empty one would be an error to them."""

    def __init__(self, kind: "Kind", model: str, task: Task, translator: "Translator") -> None:
        self._kind = kind
        self._model = model
        self._task = task
        self._translator = translator

    def piece(self, _event: str, data: str) -> bytes:
        from queen_rbee.api.ollama.lines import line

        piece = self._translator.add(data)
        return _encode(line(self._kind, self._model, datetime.now(UTC), piece)) if piece else b""

    def end(self) -> bytes:
        """Return the last line, or an error if a chunk was unreadable."""
        if not self._translator.ending.valid:
            return _encode(ollama_error(_unreadable(self._task).body))
        return _encode(self.last(self._translator.end()))

    def failure(self, task: Task) -> bytes:
        return _encode(ollama_error(failure_of(task).body))

    def last(self, piece: "Piece") -> dict[str, JsonValue]:
        """Return the object that ends the answer; `piece` is what has not been sent of it."""
        from queen_rbee.api.ollama.lines import last_line

        now, measured = datetime.now(UTC), self._task.measurements
        return last_line(self._kind, self._model, now, piece, self._translator.ending, measured)


def _encode(value: Mapping[str, JsonValue]) -> bytes:
    return f"{encode_json(value)}\n".encode()


def _unreadable(task: Task) -> ApiError:
    body = ErrorBody(code=ErrorCode.WORKER_RESET, message=UNREADABLE_ANSWER, retriable=True, pool_id=task.place.pool_id)
    return ApiError(502, body)

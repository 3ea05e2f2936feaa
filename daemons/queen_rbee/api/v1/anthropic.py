"""Routes of Anthropic's Messages API. Engines are asked for an OpenAI chat.

The translation in `queen_rbee.api.v1.messages` is imported with the first message.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.openai import GenerationRequest
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.server.bodies import in_thread_if_large
from llama_orch.http.server.error_shapes import anthropic_error
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.routes import Deferred
from llama_orch.telemetry.correlation import current
from queen_rbee.api.v1.answers import Headers
from queen_rbee.api.v1.engine_relay import EngineRelay
from queen_rbee.api.v1.engine_routes import engine_route, with_streamed
from queen_rbee.api.v1.failures import failure_of, unreadable
from queen_rbee.api.v1.openai import CHAT
from queen_rbee.api.v1.openai_requests import SHAPE, task_request
from queen_rbee.pools.model_lookup import ModelCatalog, find_target
from queen_rbee.tasks.event_log import encode_json
from queen_rbee.tasks.task import Task

if TYPE_CHECKING:
    from queen_rbee.api.v1.chat.turns import Json
    from queen_rbee.api.v1.messages.events import MessageEvent
    from queen_rbee.api.v1.messages.request import CountRequest
    from queen_rbee.api.v1.messages.translator import ChunkTranslator

    Request = TypeVar("Request", bound=CountRequest)

NOT_COUNTED = "the engine does not report how many tokens a prompt has"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'
REQUESTS = "queen_rbee.api.v1.messages.request"


class AnthropicRoutes:
    def __init__(self, relay: EngineRelay, catalog: ModelCatalog) -> None:
        self._relay = relay
        self._catalog = catalog

    @engine_route(
        "/v1/messages",
        "Create a message (Anthropic's API)",
        Deferred(REQUESTS, "MessagesRequest"),
        with_streamed(CHAT),
        "AnthropicMessage",
        "ANTHROPIC_EVENT",
    )
    async def create_message(self, exchange: Exchange) -> None:
        from queen_rbee.api.v1.messages.chat_request import chat_body
        from queen_rbee.api.v1.messages.request import MessagesRequest
        from queen_rbee.api.v1.messages.stop_reasons import answer_options
        from queen_rbee.api.v1.messages.translator import ChunkTranslator

        request, passage = await _parse(exchange, MessagesRequest, chat_body)
        options, stream = answer_options(request), request.stream
        generation = GenerationRequest(model=request.model, max_tokens=request.max_tokens)
        del request  # the passage holds the same content once more
        task = self._admit(passage, generation, exchange.headers)
        translator = ChunkTranslator(task.task_id.hex, options)
        if stream:
            await self._relay.stream(exchange, task, AnthropicDialect(task, translator))
        else:
            await self._send_message(exchange, task, translator)

    @engine_route(
        "/v1/messages/count_tokens",
        "Count the tokens of a prompt",
        Deferred(REQUESTS, "CountRequest"),
        {"short": {"model": "default", "messages": [{"role": "user", "content": "Who are you?"}]}},
        "TokenCount",
        errors=(501,),
    )
    async def count_tokens(self, exchange: Exchange) -> None:
        """Ask the engine for one token and return its count of the prompt.

        The work is not lost: the prompt is then in the engine's prefix cache when the message itself is requested.
        """
        from queen_rbee.api.v1.messages.chat_request import count_body
        from queen_rbee.api.v1.messages.request import CountRequest

        request, passage = await _parse(exchange, CountRequest, count_body)
        task = self._admit(passage, GenerationRequest(model=request.model, max_tokens=1), exchange.headers)
        await self._relay.collect(exchange, task, lambda _event, _data: None)
        if not task.measurements.tokens_in:
            raise ApiError(501, ErrorBody(code=ErrorCode.INTERNAL, message=NOT_COUNTED, pool_id=task.place.pool_id))
        await exchange.send_json(200, {"input_tokens": task.measurements.tokens_in}, self._relay.headers(task))

    def _admit(self, passage: Passage, generation: GenerationRequest, headers: Mapping[str, str]) -> Task:
        registry = self._relay.dispatcher.registry
        target = find_target(generation.model, self._catalog, registry.replicas, registry.synced)
        return self._relay.admit(task_request(generation, "chat", target, headers), passage)

    async def _send_message(self, exchange: Exchange, task: Task, translator: "ChunkTranslator") -> None:
        from queen_rbee.api.v1.messages.message_builder import MessageBuilder

        builder = MessageBuilder()
        await self._relay.collect(exchange, task, lambda _event, data: builder.add(translator.chunk(data)))
        if not translator.valid:
            raise unreadable(task)
        builder.add(translator.end(task.measurements.tokens_in, task.measurements.tokens_out))
        await exchange.send_json(200, builder.message(), self._relay.headers(task))


async def _parse(
    exchange: Exchange, model: "type[Request]", translate: "Callable[[Request], Json]"
) -> "tuple[Request, Passage]":
    """Read the request and translate it for the engine."""
    from queen_rbee.api.v1.messages.request import MessagesRequest, parse

    body = await exchange.body(shape=SHAPE)

    def parse_and_translate() -> "tuple[Request, Passage]":
        request = parse(model, body)
        streams = isinstance(request, MessagesRequest) and bool(request.stream)
        return request, Passage("chat", translate(request), len(body), counts_first=streams, mark=sha256(body).digest())

    return await in_thread_if_large(len(body), parse_and_translate)


class AnthropicDialect:
    """The Dialect of Anthropic's streams."""

    headers: Headers = []

    def __init__(self, task: Task, translator: "ChunkTranslator") -> None:
        self._task = task
        self._translator = translator

    @property
    def keep_alive(self) -> bytes:
        """A ping; before the first chunk the message's head, which must be the first event."""
        return _encode(self._translator.begin()) + PING

    def piece(self, _event: str, data: str) -> bytes:
        return _encode(self._translator.chunk(data))

    def end(self) -> bytes:
        """Return the end of the message, or an error event if a chunk was unreadable."""
        if not self._translator.valid:
            return _error_event(unreadable(self._task))
        return _encode(self._translator.end(self._task.measurements.tokens_in, self._task.measurements.tokens_out))

    def failure(self, task: Task) -> bytes:
        return _error_event(failure_of(task))


def _encode(events: "list[MessageEvent]") -> bytes:
    return b"".join(event.frame for event in events)


def _error_event(error: ApiError) -> bytes:
    return f"event: error\ndata: {encode_json(anthropic_error(error, current.get()))}\n\n".encode()

"""/v1/messages for Anthropic's clients, whatever the engine: a message is asked for as an OpenAI chat.

The translation is in `queen_rbee.api.v1.messages`, which is loaded when the first message is asked for.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.openai import GenerationRequest
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.server.bodies import in_thread_if_large
from llama_orch.http.server.error_shapes import anthropic_error
from llama_orch.http.server.exchange import Exchange, HotRoutes
from llama_orch.telemetry.correlation import current
from queen_rbee.api.v1.failures import failure_of
from queen_rbee.api.v1.openai_requests import SHAPE, task_request
from queen_rbee.api.v1.passages import Fields, Passages
from queen_rbee.pools.model_lookup import ModelCatalog, find_target
from queen_rbee.tasks.event_log import Frame, encode_json
from queen_rbee.tasks.task import Task

if TYPE_CHECKING:
    from queen_rbee.api.v1.messages.events import Event
    from queen_rbee.api.v1.messages.reading import Reading
    from queen_rbee.api.v1.messages.request import CountRequest
    from queen_rbee.api.v1.messages.turns import Json

    Request = TypeVar("Request", bound=CountRequest)

NOT_UNDERSTOOD = "the engine says something that is not understood"
NOT_COUNTED = "the engine that was asked does not tell how many tokens a prompt has"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def add_anthropic(routes: HotRoutes, passages: Passages, catalog: ModelCatalog) -> None:
    """Add the routes."""
    handlers = Anthropic(passages, catalog)
    routes.add("POST", "/v1/messages", handlers.messages)
    routes.add("POST", "/v1/messages/count_tokens", handlers.count_tokens)


class Anthropic:
    """Handlers over the queen's one way to engines."""

    def __init__(self, passages: Passages, catalog: ModelCatalog) -> None:
        self._passages = passages
        self._catalog = catalog

    async def messages(self, exchange: Exchange) -> None:
        """One message, as a stream or whole."""
        from queen_rbee.api.v1.messages.chat import chat_body
        from queen_rbee.api.v1.messages.ending import wanted_of
        from queen_rbee.api.v1.messages.reading import Reading
        from queen_rbee.api.v1.messages.request import MessagesRequest

        asked, passage = await _understood(exchange, MessagesRequest, chat_body)
        wanted, stream = wanted_of(asked), asked.stream
        generation = GenerationRequest(model=asked.model, max_tokens=asked.max_tokens)
        del asked  # the passage says it all once more
        task = self._admitted(passage, generation, exchange.headers)
        reading = Reading(task.task_id.hex, wanted)
        if stream:
            await self._passages.stream(exchange, task, Stream(task, reading))
        else:
            await self._whole(exchange, task, reading)

    async def count_tokens(self, exchange: Exchange) -> None:
        """How long a prompt is, as the engine counts it: it is asked for one token, and its count is passed on.

        The work is not lost: what it reads now is in its cache when the message itself is asked for.
        """
        from queen_rbee.api.v1.messages.chat import count_body
        from queen_rbee.api.v1.messages.request import CountRequest

        asked, passage = await _understood(exchange, CountRequest, count_body)
        task = self._admitted(passage, GenerationRequest(model=asked.model, max_tokens=1), exchange.headers)
        await self._passages.collect(exchange, task, lambda _frame: None)
        if not task.measurements.tokens_in:
            raise ApiError(501, ErrorBody(code=ErrorCode.INTERNAL, message=NOT_COUNTED, pool_id=task.place.pool_id))
        await exchange.send_json(200, {"input_tokens": task.measurements.tokens_in}, self._passages.headers(task))

    def _admitted(self, passage: Passage, wanted: GenerationRequest, headers: Mapping[str, str]) -> Task:
        registry = self._passages.dispatcher.registry
        target = find_target(wanted.model, self._catalog, registry.replicas, registry.synced)
        return self._passages.admit(task_request(wanted, "chat", target, headers), passage)

    async def _whole(self, exchange: Exchange, task: Task, reading: "Reading") -> None:
        from queen_rbee.api.v1.messages.whole import Whole

        whole = Whole()
        await self._passages.collect(exchange, task, lambda frame: whole.take(reading.chunk(frame.payload)))
        if not reading.understood:
            raise _not_understood(task)
        whole.take(reading.end(task.measurements.tokens_in, task.measurements.tokens_out))
        await exchange.send_json(200, whole.message(), self._passages.headers(task))


async def _understood(
    exchange: Exchange, model: "type[Request]", translate: "Callable[[Request], Json]"
) -> "tuple[Request, Passage]":
    """The request, and what is made of it."""
    from queen_rbee.api.v1.messages.request import MessagesRequest, parsed

    body = await exchange.body(shape=SHAPE)

    def understood() -> "tuple[Request, Passage]":
        asked = parsed(model, body)
        streams = isinstance(asked, MessagesRequest) and bool(asked.stream)
        return asked, Passage("chat", translate(asked), len(body), counts_first=streams, mark=sha256(body).digest())

    return await in_thread_if_large(len(body), understood)


class Stream:
    """An answer as Anthropic streams it."""

    headers: Fields = []

    def __init__(self, task: Task, reading: "Reading") -> None:
        self._task = task
        self._reading = reading

    @property
    def keep_alive(self) -> bytes:
        """A ping; the message's head goes before everything."""
        return _frames(self._reading.begin()) + PING

    def piece(self, frame: Frame) -> bytes:
        """What the chunk means."""
        return _frames(self._reading.chunk(frame.payload))

    def end(self) -> bytes:
        """The message's end, or why it is not to be trusted."""
        if not self._reading.understood:
            return _failed(_not_understood(self._task))
        return _frames(self._reading.end(self._task.measurements.tokens_in, self._task.measurements.tokens_out))

    def failure(self, task: Task) -> bytes:
        """The event `error`, with which a stream ends that fails midway."""
        return _failed(failure_of(task))


def _frames(events: "list[Event]") -> bytes:
    return b"".join(event.frame for event in events)


def _failed(error: ApiError) -> bytes:
    return f"event: error\ndata: {encode_json(anthropic_error(error, current.get()))}\n\n".encode()


def _not_understood(task: Task) -> ApiError:
    body = ErrorBody(code=ErrorCode.WORKER_RESET, message=NOT_UNDERSTOOD, retriable=True, pool_id=task.place.pool_id)
    return ApiError(502, body)

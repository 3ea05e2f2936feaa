"""Routes of OpenAI's Responses API. Engines are asked for an OpenAI chat.

llama-server and vLLM have this API as well. It is translated for them too: the former does the same translation, the
latter keeps responses of its own, and one translation gives every engine the same events, errors and accounting. The
translation in `queen_rbee.api.v1.responses` is imported with the first response.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import sha256
from time import time
from typing import TYPE_CHECKING

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem, not_found
from llama_orch.contracts.openai import GenerationRequest
from llama_orch.engines.wire.passage import Passage
from llama_orch.http.server.bodies import in_thread_if_large, invalid
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.routes import JSON, Deferred, gate_route, json_reply
from queen_rbee.api.v1.answers import Headers
from queen_rbee.api.v1.engine_relay import EngineRelay
from queen_rbee.api.v1.engine_routes import SCHEMAS, engine_route, with_streamed
from queen_rbee.api.v1.failures import failure_of, unreadable
from queen_rbee.api.v1.openai import with_client_fields
from queen_rbee.api.v1.openai_requests import SHAPE, task_request
from queen_rbee.pools.model_lookup import ModelCatalog, find_target
from queen_rbee.response_store import ResponseStore, StoredResponse
from queen_rbee.tasks.task import Task

if TYPE_CHECKING:
    from queen_rbee.api.v1.chat.turns import Json
    from queen_rbee.api.v1.responses.request import ResponsesRequest
    from queen_rbee.api.v1.responses.translator import ResponseTranslator

EXAMPLE: Mapping[str, str | int] = {"model": "default", "input": "Who are you?", "max_output_tokens": 40}
TURN_ON = "Set ORCHD_RESPONSE_STORE_BYTES of queen-rbee to store responses, or send the whole conversation as input."
EXPIRED = "It may have been deleted, expired, or made room for others: send the whole conversation as input."
PROMPT_FIELDS = {"messages": "input"}
"""The client's name for fields of the chat."""


class ResponsesRoutes:
    def __init__(self, relay: EngineRelay, catalog: ModelCatalog, store: ResponseStore) -> None:
        self._relay = relay
        self._catalog = catalog
        self._store = store

    @engine_route(
        "/v1/responses",
        "Create a response",
        Deferred("queen_rbee.api.v1.responses.request", "ResponsesRequest"),
        with_streamed(EXAMPLE),
        "OpenAiResponse",
        "RESPONSES_EVENT",
        links={"response_id": "/id"},
    )
    async def create_response(self, exchange: Exchange) -> None:
        from queen_rbee.api.v1.responses.resource import head
        from queen_rbee.api.v1.responses.translator import ResponseTranslator

        body = await exchange.body(shape=SHAPE)
        request, passage, keep = await self._parse(body, exchange.body_limit)
        del body
        generation = GenerationRequest(
            model=request.model, max_tokens=request.max_output_tokens, keep_alive=request.keep_alive
        )
        try:
            task = self._admit(passage, generation, exchange.headers)
            begun = head(request, task.task_id.hex, int(time()), stored=keep is not None)
            stream, translator = request.stream, ResponseTranslator(begun, request.functions)
            del request  # the passage holds the same content once more
            dialect = ResponsesDialect(task, translator, keep or _keep_nothing)
            if stream:
                await self._relay.stream(exchange, task, dialect)
            else:
                await self._send_response(exchange, task, translator, dialect)
        except ApiError as error:
            raise in_own_fields(error) from error

    @gate_route(
        "GET",
        "/v1/responses/{response_id}",
        "Get a stored response",
        {200: json_reply("The response.", Deferred(SCHEMAS, "OpenAiResponse"))},
        errors=(400,),
    )
    async def get_response(self, exchange: Exchange) -> None:
        await exchange.body()
        if exchange.query.get("stream", "false") != "false":
            raise ApiError(400, invalid([("stream", "is not supported for stored responses")]))
        found = self._store.get(exchange.variables["response_id"])
        if found is None:
            raise self._unknown(exchange)
        await exchange.send(200, found.response, [("content-type", JSON)])

    @gate_route(
        "DELETE",
        "/v1/responses/{response_id}",
        "Delete a stored response",
        {200: json_reply("The response is deleted.", Deferred(SCHEMAS, "DeletedResponse"))},
    )
    async def delete_response(self, exchange: Exchange) -> None:
        await exchange.body()
        response_id = exchange.variables["response_id"]
        if self._store.get(response_id) is None or not self._store.delete(response_id):
            raise self._unknown(exchange)
        deleted = {"id": exchange.variables["response_id"], "object": "response", "deleted": True}
        await exchange.send_json(200, deleted)

    def _unknown(self, exchange: Exchange) -> ApiError:
        return not_found("response", exchange.variables["response_id"], EXPIRED if self._store.enabled else TURN_ON)

    async def _parse(
        self, body: bytes | bytearray, limit: int
    ) -> "tuple[ResponsesRequest, Passage, Callable[[Json], bool] | None]":
        """Parse the request and translate it for the engine; the function stores the response, if it is to be."""
        from queen_rbee.api.v1.responses.request import parse
        from queen_rbee.api.v1.responses.stored_items import referenced_responses

        request = await in_thread_if_large(len(body), partial(parse, body))
        earlier = self._conversation(request.previous_response_id)
        referenced = [found for each in {*referenced_responses(request)} if (found := self._store.get(each))]
        size = len(body) + sum(each.size for each in (*earlier, *referenced))
        if size > limit:
            problem = f"the conversation has {size} bytes (at most {limit} are allowed; see LLORCH_BODY_LIMIT)"
            raise ApiError(400, invalid([("previous_response_id", problem)]))
        storing = self._store.enabled and request.store is not False
        translate = partial(_translate, request, body, size, earlier, referenced, storing)
        passage, given = await in_thread_if_large(size, translate)
        keep = partial(self._keep, request.previous_response_id, given) if storing else None
        return request, passage, keep

    def _conversation(self, previous_id: str | None) -> list[StoredResponse]:
        """Return the stored responses that a request continues. Raises ApiError 400."""
        if previous_id is None:
            return []
        try:
            return self._store.conversation(previous_id)
        except KeyError as missing:
            hint = EXPIRED if self._store.enabled else TURN_ON
            raise _previous_not_found(str(missing.args[0]), hint) from missing

    def _keep(self, previous_id: str | None, given: bytes, response: "Json") -> bool:
        document = json.dumps(response, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        return self._store.add(StoredResponse(str(response["id"]), previous_id, given, document))

    def _admit(self, passage: Passage, generation: GenerationRequest, headers: Mapping[str, str]) -> Task:
        registry = self._relay.dispatcher.registry
        target = find_target(generation.model, self._catalog, registry.replicas, registry.synced)
        return self._relay.admit(task_request(generation, "chat", target, headers), passage)

    async def _send_response(
        self, exchange: Exchange, task: Task, translator: "ResponseTranslator", dialect: "ResponsesDialect"
    ) -> None:
        await self._relay.collect(exchange, task, lambda _event, data: translator.chunk(data))
        if not translator.valid:
            raise unreadable(task)
        dialect.end()
        await exchange.send_json(200, translator.response, self._relay.headers(task))


def _translate(
    request: "ResponsesRequest",
    body: bytes | bytearray,
    size: int,
    earlier: list[StoredResponse],
    referenced: list[StoredResponse],
    storing: bool,
) -> tuple[Passage, bytes]:
    """Return the request to the engine, and the input as JSON if it is to be stored."""
    from queen_rbee.api.v1.responses.chat_request import chat_body
    from queen_rbee.api.v1.responses.items import ITEMS
    from queen_rbee.api.v1.responses.stored_items import conversation_items, with_referenced_items

    request = with_referenced_items(request, referenced)
    chat = chat_body(request, conversation_items(earlier))
    passage = Passage("chat", chat, size, mark=sha256(body).digest())
    return passage, ITEMS.dump_json(request.input, exclude_none=True) if storing else b""


class ResponsesDialect:
    """The Dialect of response streams. `keep` gets the complete response before the client does, and may refuse it."""

    keep_alive = b": keep-alive\n\n"
    headers: Headers = []

    def __init__(self, task: Task, translator: "ResponseTranslator", keep: "Callable[[Json], bool]") -> None:
        self._task = task
        self._translator = translator
        self._keep = keep

    def piece(self, _event: str, data: str) -> bytes:
        return _encode(self._translator.chunk(data))

    def end(self) -> bytes:
        """Return the end of the response; that of a failed one if a chunk was unreadable."""
        if not self._translator.valid:
            return _encode(self._translator.fail(unreadable(self._task).body))
        counts = self._task.measurements
        events = self._translator.end(counts.tokens_in, counts.tokens_out, int(time()))
        response = self._translator.response
        if response["store"] and not self._keep(response):
            response["store"] = False
        return _encode(events)

    def failure(self, task: Task) -> bytes:
        return _encode(self._translator.fail(in_own_fields(failure_of(task)).body))


def _encode(events: "list[Json]") -> bytes:
    from queen_rbee.api.v1.chat.frames import event_frame

    return b"".join(map(event_frame, events))


def _keep_nothing(_response: "Json") -> bool:
    """Store nothing: the client or the operator does not want it."""
    return False


def in_own_fields(error: ApiError) -> ApiError:
    """Return `error` with fields of tasks and chats renamed to those that the client has sent."""
    error = with_client_fields(error)
    fields = [
        item.model_copy(update={"field": PROMPT_FIELDS.get(item.field, item.field)}) for item in error.body.fields or ()
    ]
    return ApiError(error.status, error.body.model_copy(update={"fields": fields or None}), error.headers)


def _previous_not_found(response_id: str, hint: str) -> ApiError:
    message = f"there is no response {response_id[:128]} to continue"
    body = ErrorBody(
        code=ErrorCode.INVALID_PARAMS,
        reason="previous_response_not_found",
        message=message,
        hint=hint,
        fields=[FieldProblem(field="previous_response_id", problem="is not stored")],
    )
    return ApiError(400, body)

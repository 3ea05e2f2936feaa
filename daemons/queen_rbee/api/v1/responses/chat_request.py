"""Translation of a request for a response into the body of an OpenAI chat completion that every engine accepts."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, takewhile

from pydantic import JsonValue

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.openai import MAX_MESSAGES
from llama_orch.http.server.bodies import invalid
from queen_rbee.api.v1.chat import options
from queen_rbee.api.v1.chat.turns import (
    Call,
    ChatTurn,
    Image,
    Json,
    Part,
    chat_message,
    join_turns,
    result_turns,
    system_messages,
)
from queen_rbee.api.v1.responses.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    Item,
    Message,
    Reasoning,
    Refusal,
    Text,
)
from queen_rbee.api.v1.responses.request import ReasoningConfig, ResponsesRequest, TextConfig
from queen_rbee.api.v1.responses.tools import Function, chat_name

INSTRUCTING = ("system", "developer")
NO_THINKING = "none"
NO_PARAMETERS: Json = {"type": "object", "properties": {}}


def chat_body(request: ResponsesRequest, history: Sequence[Item] = ()) -> Json:
    """Return the body. `history` are the items of the responses that this one continues. Raises ApiError 400."""
    _check(request, history)
    body: Json = {**(request.model_extra or {}), "messages": chat_messages(request, history)}
    given: Json = {
        "model": request.model,
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "prompt_cache_key": request.prompt_cache_key,
    }
    body |= {name: value for name, value in given.items() if value is not None}
    return body | _tools(request) | _text(request.text) | _reasoning(request.reasoning)


def chat_messages(request: ResponsesRequest, history: Sequence[Item] = ()) -> list[JsonValue]:
    """Return the messages. Leading instructions are one message; later ones are part of the user's turn."""
    items = [*history, *request.input]
    leading = [*takewhile(_instructs, items)]
    texts = (text for item in leading if isinstance(item, Message) for text in _texts(item.content))
    turns = join_turns(_turns(items[len(leading) :]))
    return [*system_messages([request.instructions or "", *texts]), *map(chat_message, turns)]


def _check(request: ResponsesRequest, history: Sequence[Item]) -> None:
    """Refuse an output whose call is unknown: chat templates fail on it."""
    if len(history) + len(request.input) > MAX_MESSAGES:
        problem = f"the conversation has more than {MAX_MESSAGES} items"
        raise ApiError(400, invalid([("previous_response_id", problem)]))
    calls = {item.call_id for item in history if isinstance(item, FunctionCall)}
    for index, item in enumerate(request.input):
        if isinstance(item, FunctionCall):
            calls.add(item.call_id)
        elif isinstance(item, FunctionCallOutput) and item.call_id not in calls:
            raise ApiError(400, invalid([(f"input[{index}].call_id", "is not that of a function_call before it")]))


def _instructs(item: Item) -> bool:
    return isinstance(item, Message) and item.role in INSTRUCTING


def _turns(items: Iterable[Item]) -> Iterator[ChatTurn]:
    for kind, run in groupby(items, type):
        if kind is FunctionCallOutput:
            outputs = [item for item in run if isinstance(item, FunctionCallOutput)]
            yield from result_turns([(item.call_id, _parts(item.output)) for item in outputs])
        else:
            turns = map(_turn, run)
            yield from (turn for turn in turns if turn.role == "user" or turn.parts or turn.calls or turn.thoughts)


def _turn(item: Item) -> ChatTurn:
    if isinstance(item, FunctionCall):
        return ChatTurn("assistant", calls=(Call(item.call_id, chat_name(item.name, item.namespace), item.arguments),))
    if isinstance(item, Reasoning):
        return ChatTurn("assistant", thoughts=tuple(_texts(item.content or item.summary)))
    assert isinstance(item, Message)
    return ChatTurn("assistant" if item.role == "assistant" else "user", _parts(item.content))


def _parts(parts: Iterable[Text | Refusal | InputImage]) -> tuple[Part, ...]:
    return tuple(_part(part) for part in parts)


def _part(part: Text | Refusal | InputImage) -> Part:
    if isinstance(part, InputImage):
        return Image(part.image_url or "", part.detail)
    return part.text if isinstance(part, Text) else part.refusal


def _texts(parts: Iterable[Text | Refusal | InputImage]) -> Iterator[str]:
    return (part.text for part in parts if isinstance(part, Text))


def _tools(request: ResponsesRequest) -> Json:
    choice = request.tool_choice
    names = choice.names if choice else None
    offered = [function for function in request.functions if names is None or function.chat_name in names]
    return options.tools(
        map(_function, offered), choice.for_chat if choice else None, parallel=request.parallel_tool_calls
    )


def _function(offered: Function) -> Json:
    tool = offered.tool
    function: Json = {
        "name": offered.chat_name,
        "description": tool.description or "",
        "parameters": tool.parameters or NO_PARAMETERS,
    }
    return function if tool.strict is None else function | {"strict": tool.strict}


def _text(config: TextConfig | None) -> Json:
    if config is None:
        return {}
    body: Json = {"verbosity": config.verbosity} if config.verbosity else {}
    wanted = config.format
    if wanted and wanted.type == "json_schema":
        more: Json = {"description": wanted.description, "strict": wanted.strict}
        return body | options.json_format(wanted.name or "answer", wanted.schema_ or {}, **more)
    return body | {"response_format": {"type": "json_object"}} if wanted and wanted.type == "json_object" else body


def _reasoning(config: ReasoningConfig | None) -> Json:
    if config and config.effort == NO_THINKING:
        return options.thinking(enabled=False)
    return options.effort(config.effort) if config else {}

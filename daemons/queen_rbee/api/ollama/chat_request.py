"""Translation of Ollama's requests into the bodies of OpenAI's, which every engine accepts. Pure.

Ollama's messages do not always say which call a tool's message answers; OpenAI's must. `CallIds` finds it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from json import dumps

from pydantic import JsonValue

from queen_rbee.api.ollama.options import sampling
from queen_rbee.api.ollama.request import ChatRequest, GenerateRequest, GenerationFields, Message, Tool, ToolCall

Json = dict[str, JsonValue]

IMAGE_KINDS = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp", "Qk": "bmp"}
"""The beginnings of images in base64."""


def chat_body(request: ChatRequest) -> Json:
    """Return the body of a chat completion."""
    ids = CallIds()
    messages: list[JsonValue] = [_message(message, ids) for message in request.messages or ()]
    body: Json = {"model": request.model, "messages": messages, **_common(request)}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    return body


def generation_body(request: GenerateRequest) -> Json:
    """Return the body of a chat completion with the prompt as its only turn; of a text completion if it is raw."""
    if request.raw:
        return {"model": request.model, "prompt": request.prompt or "", **sampling(request.options)}
    system: list[JsonValue] = [{"role": "system", "content": request.system}] if request.system else []
    user: JsonValue = {"role": "user", "content": _content(request.prompt or "", request.images or ())}
    return {"model": request.model, "messages": [*system, user], **_common(request)}


def _common(request: GenerationFields) -> Json:
    body = sampling(request.options) | _format(request.format) | _thinking(request.think)
    if request.logprobs or request.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    return body


def _format(format_: str | dict[str, JsonValue] | None) -> Json:
    if not format_:
        return {}
    if isinstance(format_, str):
        return {"response_format": {"type": "json_object"}}
    schema: Json = {"name": "answer", "schema": format_, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _thinking(think: bool | str | None) -> Json:
    """Return the options for thinking. Chat templates read `enable_thinking`; models without it ignore it."""
    if think is None:
        return {}
    body: Json = {"chat_template_kwargs": {"enable_thinking": bool(think)}}
    if isinstance(think, str):
        body["reasoning_effort"] = "high" if think == "max" else think
    return body


def _tool(tool: Tool) -> JsonValue:
    function: Json = {"name": tool.function.name, "description": tool.function.description or ""}
    function["parameters"] = tool.function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}


@dataclass
class CallIds:
    """The calls that have not been answered yet, in order, as (id, name of the tool)."""

    _open: list[tuple[str, str]] = field(default_factory=list)
    _count: int = 0

    def add(self, call: ToolCall) -> str:
        """Return the id of a call; one without an id gets the next number."""
        self._count += 1
        identifier = call.id or f"call_{self._count}"
        self._open.append((identifier, call.function.name))
        return identifier

    def answer(self, message: Message) -> str:
        """Return the id of the call that `message` answers: the one it names, else the first open one of its tool,
        else the first open one. A message that answers no call gets an id of its own."""
        given, tool = message.tool_call_id, message.tool_name
        matching = [each for each in self._open if (each[0] == given if given else tool in (None, each[1]))]
        found = matching[0] if matching else self._open[0] if self._open and not given else None
        if found is None:
            self._count += 1
            return given or f"call_{self._count}"
        self._open.remove(found)
        return found[0]


def _message(message: Message, ids: CallIds) -> JsonValue:
    role = "system" if message.role == "developer" else message.role
    body: Json = {"role": role, "content": _content(message.content or "", message.images or ())}
    if message.thinking and role == "assistant":
        body["reasoning_content"] = message.thinking
    if message.tool_calls and role == "assistant":
        body["tool_calls"] = [_call(call, ids.add(call)) for call in message.tool_calls]
    if role == "tool":
        body["tool_call_id"] = ids.answer(message)
    return body


def _call(call: ToolCall, identifier: str) -> JsonValue:
    arguments = dumps(call.function.arguments, ensure_ascii=False)
    return {"id": identifier, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def _content(text: str, images: Iterable[str]) -> JsonValue:
    pictures: list[JsonValue] = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"type": "text", "text": text}, *pictures] if pictures else text


def data_url(image: str) -> str:
    """Return the URL of an image in base64. An unknown kind is called PNG: engines look at the data."""
    kind = next((kind for begin, kind in IMAGE_KINDS.items() if image.startswith(begin)), "png")
    return f"data:image/{kind};base64,{image}"

"""Translation of Anthropic's request into the body of an OpenAI chat completion that every engine accepts.

A tool that the model must use is the only one offered: llama-server treats a `tool_choice` that names a function as
`auto`.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from queen_rbee.api.v1.messages.chat_messages import Json, chat_messages, continues_assistant_turn
from queen_rbee.api.v1.messages.request import CountRequest, MessagesRequest, OutputConfig, ThinkingWish, Tool

CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
EFFORTS: Mapping[str, str] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""OpenAI's `reasoning_effort`. Engines refuse values that they do not know."""


def chat_body(request: MessagesRequest) -> Json:
    body = _prompt(request) | {"max_tokens": request.max_tokens}
    if request.stop_sequences:
        body["stop"] = list(request.stop_sequences)
    sampling = {"temperature": request.temperature, "top_p": request.top_p, "top_k": request.top_k}
    return body | {name: value for name, value in sampling.items() if value is not None}


def count_body(request: CountRequest) -> Json:
    """Return the body of a request whose `usage` counts the prompt. One token is the least that engines accept."""
    return _prompt(request) | {"max_tokens": 1}


def _prompt(request: CountRequest) -> Json:
    body: Json = {"model": request.model, "messages": chat_messages(request)}
    if continues_assistant_turn(request):
        # llama-server does this by itself; vLLM needs both options
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return body | _tools(request) | _thinking(request.thinking) | _output(request.output_config)


def _tools(request: CountRequest) -> Json:
    choice, offered = request.tool_choice, request.tools or ()
    if choice and choice.type == "tool":
        offered = tuple(tool for tool in offered if tool.name == choice.name)
    if not offered:
        return {}
    body: Json = {"tools": [_function(tool) for tool in offered]}
    if choice:
        body["tool_choice"] = CHOICES[choice.type]
        if choice.disable_parallel_tool_use:
            body["parallel_tool_calls"] = False
    return body


def _function(tool: Tool) -> JsonValue:
    function: Json = {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}
    return {"type": "function", "function": function}


def _thinking(config: ThinkingWish | None) -> Json:
    """Return the options for thinking.

    Chat templates read `enable_thinking`, on llama-server and vLLM alike; other engines ignore it.
    `thinking_budget_tokens` is llama-server's name; vLLM ignores it.
    """
    if config is None or config.type not in ("enabled", "disabled"):
        return {}
    enabled = config.type == "enabled"
    body: Json = {"chat_template_kwargs": {"enable_thinking": enabled}}
    return body | {"thinking_budget_tokens": config.budget_tokens} if enabled and config.budget_tokens else body


def _output(config: OutputConfig | None) -> Json:
    body: Json = {}
    if config and config.format:
        schema: Json = {"name": "answer", "schema": config.format.schema_, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if config and config.effort in EFFORTS:
        body["reasoning_effort"] = EFFORTS[config.effort or ""]
    return body

"""From Anthropic's request to the body of an OpenAI chat completion that every engine understands.

A tool that must be used is the only one offered: llama-server reads a `tool_choice` that names a function as `auto`.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from queen_rbee.api.v1.messages.request import CountRequest, MessagesRequest, OutputConfig, ThinkingWish, Tool
from queen_rbee.api.v1.messages.turns import Json, goes_on, messages_of

CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
EFFORTS: Mapping[str, str] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}
"""OpenAI's `reasoning_effort`; engines refuse the words that they do not know."""


def chat_body(asked: MessagesRequest) -> Json:
    """The body for an answer."""
    body = _prompt(asked) | {"max_tokens": asked.max_tokens}
    if asked.stop_sequences:
        body["stop"] = list(asked.stop_sequences)
    sampling = {"temperature": asked.temperature, "top_p": asked.top_p, "top_k": asked.top_k}
    return body | {name: value for name, value in sampling.items() if value is not None}


def count_body(asked: CountRequest) -> Json:
    """The body of a request whose `usage` counts the prompt: one token is the least that engines can be asked for."""
    return _prompt(asked) | {"max_tokens": 1}


def _prompt(asked: CountRequest) -> Json:
    body: Json = {"model": asked.model, "messages": messages_of(asked)}
    if goes_on(asked):
        # vLLM needs to be told what llama-server does anyway: the answer goes on where this turn ends
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    return body | _tools(asked) | _thinking(asked.thinking) | _output(asked.output_config)


def _tools(asked: CountRequest) -> Json:
    choice, offered = asked.tool_choice, asked.tools or ()
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


def _thinking(wish: ThinkingWish | None) -> Json:
    """`enable_thinking` is what chat templates know, on llama-server and vLLM alike; others pass over it.

    The budget's name is llama-server's own; vLLM passes over it.
    """
    if wish is None or wish.type not in ("enabled", "disabled"):
        return {}
    enabled = wish.type == "enabled"
    body: Json = {"chat_template_kwargs": {"enable_thinking": enabled}}
    return body | {"thinking_budget_tokens": wish.budget_tokens} if enabled and wish.budget_tokens else body


def _output(wish: OutputConfig | None) -> Json:
    body: Json = {}
    if wish and wish.format:
        schema: Json = {"name": "answer", "schema": wish.format.schema_, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if wish and wish.effort in EFFORTS:
        body["reasoning_effort"] = EFFORTS[wish.effort or ""]
    return body

"""Translation of Anthropic's request into the body of an OpenAI chat completion that every engine accepts."""

from collections.abc import Mapping

from queen_rbee.api.v1.chat import options
from queen_rbee.api.v1.chat.turns import Json
from queen_rbee.api.v1.messages.chat_messages import chat_messages, continues_assistant_turn
from queen_rbee.api.v1.messages.request import CountRequest, MessagesRequest, OutputConfig, ThinkingWish, Tool

CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


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
    parallel = False if choice and choice.disable_parallel_tool_use else None
    return options.tools(map(_function, offered), CHOICES[choice.type] if choice else None, parallel=parallel)


def _function(tool: Tool) -> Json:
    return {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}


def _thinking(config: ThinkingWish | None) -> Json:
    """Return the options for thinking. `thinking_budget_tokens` is llama-server's name; vLLM ignores it."""
    if config is None or config.type not in ("enabled", "disabled"):
        return {}
    enabled = config.type == "enabled"
    body = options.thinking(enabled)
    return body | {"thinking_budget_tokens": config.budget_tokens} if enabled and config.budget_tokens else body


def _output(config: OutputConfig | None) -> Json:
    if config is None:
        return {}
    body = options.json_format("answer", config.format.schema_, strict=True) if config.format else {}
    return body | options.effort(config.effort)

"""The response object, as in https://platform.openai.com/docs/api-reference/responses/object."""

from collections.abc import Sequence

from pydantic import JsonValue

from llama_orch.contracts.errors import ErrorBody, ErrorCode
from queen_rbee.api.v1.chat.chunks import ChatUsage
from queen_rbee.api.v1.chat.turns import Json
from queen_rbee.api.v1.responses.request import ResponsesRequest
from queen_rbee.api.v1.responses.tools import Namespace, Tool

PREFIX = "resp_"
OVERLOAD = (ErrorCode.ADMISSION_REJECT, ErrorCode.QUEUE_FULL_DROP_LRU)


def head(request: ResponsesRequest, answer_id: str, created_at: int, *, stored: bool) -> Json:
    """Return the fields that are known before the answer, of a response that has just begun.

    `created_at` is in seconds since the epoch. Some clients read fields of which this release has only one value.
    """
    reasoning, text = request.reasoning, request.text
    return {
        "id": f"{PREFIX}{answer_id}",
        "object": "response",
        "created_at": created_at,
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": request.model or "default",
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "service_tier": "default",
        "store": stored,
        "temperature": request.temperature,
        "text": {"format": _format(request), **({"verbosity": text.verbosity} if text and text.verbosity else {})},
        "tool_choice": _choice(request),
        "tools": [_tool(tool) for tool in request.tools or ()],
        "top_logprobs": 0,
        "top_p": request.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": request.user,
        "safety_identifier": request.safety_identifier,
        "metadata": dict(request.metadata or {}),
    }


def _tool(tool: Tool | Namespace) -> Json:
    if isinstance(tool, Namespace):
        return {**tool.model_dump(exclude={"tools"}), "tools": [_tool(each) for each in tool.tools]}
    return {**tool.model_dump(), "strict": bool(tool.strict)}


def _choice(request: ResponsesRequest) -> JsonValue:
    choice = request.tool_choice
    if choice is None or choice.type in ("none", "auto", "required"):
        return choice.type if choice else "auto"
    if choice.type == "function":
        return {"type": "function", "name": choice.name}
    tools: list[JsonValue] = [{"type": "function", "name": tool.name} for tool in choice.tools]
    return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}


def _format(request: ResponsesRequest) -> JsonValue:
    wanted = request.text.format if request.text else None
    if wanted is None:
        return {"type": "text"}
    described: JsonValue = wanted.model_dump(by_alias=True, exclude_none=True)
    return described


def usage(counts: ChatUsage) -> Json:
    """Return OpenAI's `usage`. No engine reports cache writes; few report tokens of reasoning."""
    return {
        "input_tokens": counts.prompt_tokens,
        "input_tokens_details": {"cached_tokens": counts.cached or 0, "cache_write_tokens": 0},
        "output_tokens": counts.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning or 0},
        "total_tokens": counts.prompt_tokens + counts.completion_tokens,
    }


def finished(begun: Json, output: Sequence[Json], counts: ChatUsage, completed_at: int, incomplete: str | None) -> Json:
    """Return the complete response. `incomplete` is why it stopped early, if it did."""
    whole: Json = {**begun, "output": [*output], "usage": usage(counts)}
    if incomplete:
        return whole | {"status": "incomplete", "incomplete_details": {"reason": incomplete}}
    return whole | {"status": "completed", "completed_at": completed_at}


def failed(begun: Json, output: Sequence[Json], error: ErrorBody) -> Json:
    """Return the response that ended with `error`, which is not stored.

    Its code is one of OpenAI's few; the error event has ours.
    """
    code = "rate_limit_exceeded" if error.code in OVERLOAD else "server_error"
    cause: Json = {"code": code, "message": error.message}
    return {**begun, "status": "failed", "store": False, "output": [*output], "error": cause}

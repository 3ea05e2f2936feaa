"""Options of an OpenAI chat that every engine accepts."""

from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from queen_rbee.api.v1.chat.turns import Json

EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""OpenAI's `reasoning_effort`. Engines refuse values that they do not know."""


def effort(wanted: str | None) -> Json:
    """Return the option for an effort of reasoning; none for an unknown one."""
    known = EFFORTS.get(wanted or "")
    return {"reasoning_effort": known} if known else {}


def thinking(enabled: bool) -> Json:
    """Return the option that turns thinking on or off.

    Chat templates read `enable_thinking`, on llama-server and vLLM alike; other engines ignore it.
    """
    return {"chat_template_kwargs": {"enable_thinking": enabled}}


def tools(functions: Iterable[Json], choice: str | None, *, parallel: bool | None) -> Json:
    """Return the options for `functions`; nothing without any. `choice` is auto, required or none.

    A tool that the model must use has to be the only one offered: llama-server treats a `tool_choice` that names a
    function as `auto`.
    """
    offered: list[JsonValue] = [{"type": "function", "function": function} for function in functions]
    if not offered:
        return {}
    body: Json = {"tools": offered}
    if choice:
        body["tool_choice"] = choice
    return body if parallel is None else body | {"parallel_tool_calls": parallel}


def json_format(name: str, schema: Json, **more: JsonValue) -> Json:
    """Return the option for an answer that follows a JSON schema."""
    described: Json = {
        "name": name,
        "schema": schema,
        **{key: value for key, value in more.items() if value is not None},
    }
    return {"response_format": {"type": "json_schema", "json_schema": described}}

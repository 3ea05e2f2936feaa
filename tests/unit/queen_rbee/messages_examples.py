"""Anthropic requests and OpenAI chat chunks: hypothesis strategies and documented examples."""

import json
from typing import Any

from hypothesis import strategies as st

QUESTION = {"model": "m", "max_tokens": 32, "messages": [{"role": "user", "content": "What is the weather?"}]}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}
WEATHER = {
    "name": "get_weather",
    "description": "Get weather.",
    "input_schema": {"type": "object", "properties": {}},
}

texts = st.text(max_size=20)
names = st.text("abcxyz_", min_size=1, max_size=8)
scalars = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
anything = st.recursive(
    scalars | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
objects = st.dictionaries(texts, anything, max_size=3)


def _with(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    optional = {"cache_control": st.just({"type": "ephemeral"}), "new_field": anything}
    return st.fixed_dictionaries({"type": st.just(kind), **fields}, optional=optional)


text_blocks = _with("text", text=texts)
image_blocks = _with("image", source=st.just(PNG) | st.just({"type": "url", "url": "https://example.org/a.png"}))
thinking_blocks = _with("thinking", thinking=texts, signature=texts) | _with("redacted_thinking", data=texts)
tool_use_blocks = _with("tool_use", id=names, name=names, input=objects)
tool_result_blocks = _with(
    "tool_result",
    tool_use_id=names,
    content=st.none() | texts | st.lists(text_blocks | image_blocks, max_size=3),
    is_error=st.sampled_from([None, True, False]),
)


def _content(blocks: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[Any]:
    return texts | st.lists(blocks, min_size=least, max_size=4)


messages = (
    st.builds(lambda c: {"role": "user", "content": c}, _content(text_blocks | image_blocks | tool_result_blocks, 1))
    | st.builds(
        lambda c: {"role": "assistant", "content": c}, _content(text_blocks | thinking_blocks | tool_use_blocks)
    )
    | st.builds(lambda c: {"role": "system", "content": c}, _content(text_blocks, 1))
)
tools = st.fixed_dictionaries({"name": names, "input_schema": objects}, optional={"description": st.none() | texts})


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a valid request."""
    optional: dict[str, st.SearchStrategy[Any]] = {
        "system": st.none() | texts | st.lists(text_blocks, max_size=3),
        "stop_sequences": st.none() | st.lists(st.text(min_size=1, max_size=5), max_size=3),
        "temperature": st.none() | st.floats(0, 1),
        "top_p": st.none() | st.floats(0, 1),
        "top_k": st.none() | st.integers(0, 100),
        "stream": st.none() | st.booleans(),
        "thinking": st.sampled_from(
            [{"type": "disabled"}, {"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}]
        ),
        "output_config": st.fixed_dictionaries({}, optional={"effort": st.sampled_from(["low", "max", "new"])}),
        "metadata": objects,
        "service_tier": st.just("auto"),
        "an_option_of_tomorrow": anything,
    }
    required = {
        "model": names,
        "max_tokens": st.integers(1, 10_000),
        "messages": st.lists(messages, min_size=1, max_size=6),
    }
    request: dict[str, Any] = draw(st.fixed_dictionaries(required, optional=optional))
    if offered := draw(st.lists(tools, max_size=3)):
        choices = [{"type": kind} for kind in ("auto", "any", "none")] + [{"type": "tool", "name": offered[0]["name"]}]
        choice = {**draw(st.sampled_from(choices)), "disable_parallel_tool_use": draw(st.booleans())}
        request |= {"tools": offered, "tool_choice": choice}
    return request


def body(request: object) -> bytes:
    return json.dumps(request).encode()


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **choice: object) -> str:
    """Return a chunk with one choice, as llama-server writes it."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish, **choice}]
    return json.dumps({"object": "chat.completion.chunk", "choices": choices})


def call(index: int, arguments: str = "", **head: str) -> dict[str, Any]:
    """Return the delta of one piece of a tool call; the first piece has `id` and `name`."""
    function = {"arguments": arguments} | ({"name": head["name"]} if "name" in head else {})
    identity = {"id": head["id"], "type": "function"} if "id" in head else {}
    return {"tool_calls": [{"index": index, "function": function, **identity}]}


def usage(prompt: int, completion: int, cached: int | None = None) -> str:
    """Return the chunk with the token counts."""
    counts: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
    details = {} if cached is None else {"prompt_tokens_details": {"cached_tokens": cached}}
    return json.dumps({"choices": [], "usage": counts | details})

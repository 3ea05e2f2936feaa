"""llama-server reports counts per choice; the adapter adds them up, and clients get one usage."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapter import AnswerPart, EngineCall, Finished, StreamChunk
from llama_orch.engines.wire.adapters import adapters
from llama_orch.engines.wire.openai_stream import EMPTY
from llama_orch.engines.wire.passage import Endpoint, Passage

USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


def passage_call(endpoint: Endpoint = "chat", **body: Any) -> EngineCall:
    return adapters()["llamacpp"].call(TaskRequest(), Passage(endpoint, body, 1), None)


def parsed(call: EngineCall, *chunks: object) -> list[AnswerPart]:
    """The parsed parts of `chunks` and of the end of the stream."""
    return [*(part for chunk in chunks for part in call.event(json.dumps(chunk))), *call.event("[DONE]")]


def usage(tokens_in: int, tokens_out: int, cached: int = 0) -> dict[str, Any]:
    counts = {"completion_tokens": tokens_out, "prompt_tokens": tokens_in, "total_tokens": tokens_in + tokens_out}
    return {**counts, "prompt_tokens_details": {"cached_tokens": cached}}


def timings(tokens_in: int, tokens_out: int, cached: int = 0) -> dict[str, Any]:
    return {"cache_n": cached, "prompt_n": tokens_in - cached, "predicted_n": tokens_out, "predicted_ms": 1.5}


def delta(index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    content = {} if finish else {"content": "a"}
    return {"id": "x", "choices": [{"index": index, "delta": content, "finish_reason": finish}], **more}


def text(index: int, **more: Any) -> dict[str, Any]:
    """The chunk that ends a choice of a text completion."""
    return {"id": "x", "choices": [{"index": index, "text": "", "finish_reason": "length"}], **more}


def counted(tokens_in: int, tokens_out: int, cached: int = 0) -> dict[str, Any]:
    """The chunk after a choice of a chat."""
    counts = {"usage": usage(tokens_in, tokens_out, cached), "timings": timings(tokens_in, tokens_out, cached)}
    return {"id": "x", "choices": [], **counts}


@pytest.mark.parametrize(
    ("body", "options"),
    [
        ({}, USAGE),
        ({"stream": False}, USAGE),
        ({"stream": None, "stream_options": None}, USAGE),
        ({"stream": True, **USAGE}, USAGE),
        ({"stream": True}, {}),
        ({"stream": True, "stream_options": {"include_usage": False}}, {"stream_options": {"include_usage": False}}),
    ],
)
def test_usage_is_requested_if_the_client_gets_it(body: dict[str, Any], options: dict[str, Any]) -> None:
    assert json.loads(passage_call(**body).body) == {"stream": True, **options}


def test_stream_without_usage_is_counted_by_timings() -> None:
    chunks = [delta(), delta(finish="stop", timings=timings(9, 2, cached=4))]
    parts = parsed(passage_call(stream=True), *chunks)
    assert parts == [StreamChunk(json.dumps(chunks[0]), 1), StreamChunk(json.dumps(chunks[1])), Finished(9, 2, 4)]


def test_only_the_last_timings_count() -> None:
    chunks = [delta(timings=timings(9, 1)), delta(timings=timings(9, 2)), delta(finish="stop", timings=timings(9, 3))]
    parts = parsed(passage_call(stream=True, timings_per_token=True), *chunks)
    assert [part.raw for part in parts if isinstance(part, StreamChunk)] == [json.dumps(chunk) for chunk in chunks]
    assert parts[-1] == Finished(9, 3, 0)


def test_usage_of_a_single_choice_is_passed_on_unchanged() -> None:
    last = counted(9, 2, cached=4)
    parts = parsed(passage_call(), delta(), delta(finish="stop"), last)
    assert parts[-2:] == [StreamChunk(json.dumps(last), usage=True), Finished(9, 2, 4)]


def choices_of_a_chat() -> list[dict[str, Any]]:
    return [delta(0), delta(1), delta(0, "stop"), counted(5, 3, cached=2), delta(1), delta(1, "stop"), counted(5, 4, 2)]


def test_choices_are_added_and_their_prompt_counted_once() -> None:
    parts = parsed(passage_call(n=2), *choices_of_a_chat())
    assert parts[-1] == Finished(5, 7, 2)


def test_client_gets_one_usage_after_all_choices() -> None:
    parts = parsed(passage_call(n=2, stream=True, **USAGE), *choices_of_a_chat())
    (only,) = [part for part in parts if isinstance(part, StreamChunk) and part.usage]
    assert parts[-2] is only
    assert json.loads(only.raw) == {**counted(5, 4, 2), "usage": usage(5, 7, cached=2)}


def test_each_of_several_prompts_is_counted_once() -> None:
    ends = [text(index, usage=usage(tokens_in, 2)) for index, tokens_in in enumerate((4, 4, 6, 6))]
    parts = parsed(passage_call("completions", prompt=["a", "b"], n=2), *ends)
    assert parts[-1] == Finished(10, 8, 0)
    assert isinstance(parts[-2], StreamChunk)
    assert json.loads(parts[-2].raw)["usage"] == usage(10, 8)


def test_usage_that_covers_all_choices_is_used() -> None:
    parts = parsed(passage_call(n=2), delta(0, "stop"), delta(1, "stop"), counted(5, 7))
    assert parts[-1] == Finished(5, 7, 0)


@given(
    prompts=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=4),
    each=st.integers(1, 4),
    tokens_out=st.integers(0, 99),
    streamed=st.booleans(),
)
def test_sums_equal_the_parts_for_any_request(
    prompts: list[tuple[int, int]], each: int, tokens_out: int, streamed: bool
) -> None:
    call = passage_call("completions", prompt=["x"] * len(prompts), n=each, stream=streamed)
    choices = [(read + cached, cached) for read, cached in prompts for _choice in range(each)]
    ends = [
        text(index, timings=timings(total, tokens_out, cached), usage=usage(total, tokens_out, cached))
        for index, (total, cached) in enumerate(choices)
    ]
    expected = Finished(
        sum(read + cached for read, cached in prompts), tokens_out * len(choices), sum(cached for _, cached in prompts)
    )
    assert parsed(call, *ends)[-1] == expected


def test_without_counts_none_are_made_up() -> None:
    assert parsed(passage_call(n=2), delta(0, "stop"), delta(1, "stop"))[-1] == Finished(None, None)
    assert parsed(passage_call(stream=True), delta(finish="stop", timings="soon"))[-1] == Finished(None, None)
    assert parsed(passage_call(n=2)) == [EMPTY]

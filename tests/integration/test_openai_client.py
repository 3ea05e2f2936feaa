"""The openai package against a HOME_PROFILE with a real engine: requests, streams and errors."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home
from tests.integration.openai_home import CHAT, client_of, engine_url

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "aGVsbG8=", "format": "wav"}}
POOLING_FLAGS = ("--pooling", "mean")
WORKLOADS = ("completion", "embedding")


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home with a fast model that also serves embeddings."""
    with home(
        tmp_path_factory.mktemp("fast"), llama_server_tar, tiny_model, flags=POOLING_FLAGS, workloads=WORKLOADS
    ) as running:
        yield running


@pytest.fixture
def client(fast: Home) -> Iterator[OpenAI]:
    with client_of(fast) as opened:
        yield opened


def ask_engine(running: Home, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send `body` to the engine itself, not streamed, and return its response."""
    request = urllib.request.Request(f"{engine_url(running)}{path}", json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def with_total_usage(document: dict[str, Any], prompts: int, choices: int) -> dict[str, Any]:
    """Set the usage to the sum over all prompts and choices, as OpenAI defines it.

    The engine reports only one of them; in these tests all have the same length.
    """
    usage = document["usage"]
    tokens_in, tokens_out = usage["prompt_tokens"] * prompts, usage["completion_tokens"] * prompts * choices
    counts = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    return {**document, "usage": usage | counts}


def without_variable_fields(document: dict[str, Any]) -> dict[str, Any]:
    """Remove what differs between identical requests: ids, times and the number of cached tokens."""
    document["usage"].get("prompt_tokens_details", {}).pop("cached_tokens", None)
    return {key: value for key, value in document.items() if key not in ("id", "created", "timings")}


CHAT_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "two": {"n": 2},
    "json": {"response_format": {"type": "json_object"}, "max_tokens": 40},
    "stop": {"stop": ["ir"]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]},
    "no room": {"max_tokens": 900},
}
COMPLETION_VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"prompt": "hello"},
    "logprobs": {"prompt": "hello", "logprobs": 2},
    "tokens": {"prompt": [5, 6, 7]},
    "two prompts": {"prompt": ["hello", "world"]},
    "two": {"prompt": "hello", "n": 2},
}


@pytest.mark.parametrize("name", CHAT_VARIANTS)
def test_assembled_chat_equals_engine_document(fast: Home, name: str):
    body = {**CHAT, **CHAT_VARIANTS[name]}
    status, answer = fast.ask("POST", "/v1/chat/completions", body)
    assert status == 200
    assert set(answer) == set(expected := ask_engine(fast, "/v1/chat/completions", body))
    assert set(answer["timings"]) == set(expected["timings"])
    assert without_variable_fields(answer) == without_variable_fields(
        with_total_usage({**expected, "model": "default"}, 1, body.get("n", 1))
    )


@pytest.mark.parametrize("name", COMPLETION_VARIANTS)
def test_assembled_completion_equals_engine_document(fast: Home, name: str):
    body = {"model": "default", "max_tokens": 8, "temperature": 0, "seed": 1, **COMPLETION_VARIANTS[name]}
    status, answer = fast.ask("POST", "/v1/completions", body)
    assert status == 200
    expected = ask_engine(fast, "/v1/completions", body)
    prompts = 2 if name == "two prompts" else 1
    assert without_variable_fields(answer) == without_variable_fields(
        with_total_usage({**expected, "model": "default"}, prompts, body.get("n", 1))
    )


def test_usage_counts_all_choices_of_stream(client: OpenAI, fast: Home):
    request_body: Any = {**CHAT, "n": 2, "stream": True, "stream_options": {"include_usage": True}}
    usages = [chunk.usage for chunk in client.chat.completions.create(**request_body) if chunk.usage]
    assert [usage.completion_tokens for usage in usages] == [16]
    alone = client.chat.completions.create(**CHAT).usage
    assert alone is not None
    assert usages[0].prompt_tokens == alone.prompt_tokens
    _single, several, *_earlier = fast.ask("GET", "/v2/tasks")[1]["tasks"]
    assert several["usage"] == {"tokens_in": alone.prompt_tokens, "tokens_out": 16}


def test_stream_without_usage_has_timings_and_is_counted(client: OpenAI, fast: Home):
    *_others, last = client.chat.completions.create(**CHAT, stream=True)
    assert last.usage is None
    assert last.choices[0].finish_reason == "length"
    timings: dict[str, Any] = (last.model_extra or {})["timings"]
    newest = fast.ask("GET", "/v2/tasks")[1]["tasks"][0]
    assert newest["usage"]["tokens_out"] == timings["predicted_n"] == 8
    assert newest["usage"]["tokens_in"] == timings["prompt_n"] + timings["cache_n"]


def test_answer_echoes_requested_model_name(client: OpenAI, tiny_model: Path):
    for name in ("default", tiny_model.stem, f"file:{tiny_model}"):
        assert client.chat.completions.create(**{**CHAT, "model": name}).model == name
        assert {chunk.model for chunk in client.chat.completions.create(**{**CHAT, "model": name}, stream=True)} == {
            name
        }
        assert client.embeddings.create(model=name, input="hello").model == name


def test_chat_and_completion_have_openai_shape(client: OpenAI):
    chat = client.chat.completions.create(**CHAT)
    assert (chat.object, chat.choices[0].message.role) == ("chat.completion", "assistant")
    assert chat.choices[0].message.content
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 8
    text = client.completions.create(model="default", prompt="hello", max_tokens=3)
    assert (text.object, text.choices[0].finish_reason) == ("text_completion", "length")


def test_streamed_answer_equals_whole_answer(client: OpenAI):
    whole = client.chat.completions.create(**CHAT)
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert all(chunk.choices for chunk in client.chat.completions.create(**CHAT, stream=True))
    texts = client.completions.create(model="default", prompt="hello", max_tokens=5, stream=True)
    assert sum(bool(chunk.choices[0].text) for chunk in texts) == 5


def test_stream_helper_of_package_assembles_same_answer(client: OpenAI):
    request_body = {**CHAT, "stop": ["ir"], "logprobs": True}
    whole = client.chat.completions.create(**request_body)
    with client.chat.completions.stream(**request_body) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].logprobs is not None
    assert whole.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content == whole.choices[0].logprobs.content
    assert {len(token.top_logprobs) for token in whole.choices[0].logprobs.content or ()} == {0}


class Verdict(BaseModel):
    good: bool


def test_answer_follows_response_format(client: OpenAI):
    parsed = client.chat.completions.parse(**{**CHAT, "max_tokens": 60}, response_format=Verdict)
    assert isinstance(parsed.choices[0].message.parsed, Verdict)


def test_async_client_gets_same_answers(fast: Home):
    async def collect_answers() -> list[str]:
        async with AsyncOpenAI(base_url=f"{fast.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(**CHAT, stream=True)
            streamed = [chunk.choices[0].delta.content or "" async for chunk in stream]
            chats = await asyncio.gather(*(client.chat.completions.create(**CHAT) for _ in range(4)))
            return ["".join(streamed), *(chat.choices[0].message.content or "" for chat in chats)]

    assert len(set(asyncio.run(collect_answers()))) == 1


def test_embeddings_are_base64_by_default_or_floats(client: OpenAI, fast: Home):
    packed = client.embeddings.create(model="default", input=["hello", "world"])
    plain = client.embeddings.create(model="default", input=["hello", "world"], encoding_format="float")
    assert [len(item.embedding) for item in packed.data] == [64, 64]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding)
    from_engine = ask_engine(fast, "/v1/embeddings", {"input": "hello"})
    assert plain.data[0].embedding == pytest.approx(from_engine["data"][0]["embedding"])
    assert plain.usage.prompt_tokens == 4


def test_documents_are_ranked(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path):
    body = {"query": "hello", "documents": ["world", "river", "hello"], "top_n": 2}
    with home(tmp_path, llama_server_tar, tiny_model, flags=["--reranking"]) as running:
        status, answer = running.ask("POST", "/v1/rerank", body)
        assert (status, answer["results"]) == (200, ask_engine(running, "/v1/rerank", body)["results"])
        assert len(answer["results"]) == 2


def test_unsupported_workload_is_client_error(client: OpenAI):
    with pytest.raises(openai.BadRequestError, match="--reranking"):
        client.post("/rerank", cast_to=object, body={"query": "hello", "documents": ["world"]})


def test_models_are_listed_and_found_by_names_with_slashes(client: OpenAI, tiny_model: Path):
    names = [model.id for model in client.models.list()]
    assert names[0] == "default"
    assert names[1] == tiny_model.stem
    for name in (*names, f"file:{tiny_model}"):
        assert client.models.retrieve(name).id == name
        assert client.chat.completions.create(**{**CHAT, "model": name}).choices


def test_catalog_model_is_served_by_its_id(client: OpenAI, fast: Home):
    served = [model.id for model in client.models.list()][1]
    status, _model = fast.ask("POST", "/v2/catalog/models", {"id": "parrot", "model_ref": served})
    assert status == 201
    assert "parrot" in [model.id for model in client.models.list()]
    assert client.models.retrieve("parrot").created > 0
    assert client.chat.completions.create(**{**CHAT, "model": "parrot"}).choices
    fast.ask("POST", "/v2/catalog/models/parrot/state", {"state": "Retired"})
    with pytest.raises(openai.NotFoundError, match="retired"):
        client.chat.completions.create(**{**CHAT, "model": "parrot"})


def test_response_headers_name_request_and_pool(client: OpenAI):
    raw = client.chat.completions.with_raw_response.create(**CHAT, extra_headers={"X-Correlation-Id": "find-me"})
    assert raw.headers["x-llama-orch-pool"] == "default"
    assert raw.headers["x-queue-position"] == "0"
    assert float(raw.headers["x-llama-orch-overhead-ms"]) >= 0
    assert raw.parse()._request_id == "find-me"


def test_session_header_continues_session(client: OpenAI, fast: Home):
    session = str(uuid4())
    for _ in range(2):
        client.chat.completions.create(**CHAT, extra_headers={"X-Session-Id": session})
    _status, view = fast.ask("GET", f"/v2/sessions/{session}")
    assert view["turns"] == 2


def test_unknown_model_is_not_found(client: OpenAI):
    with pytest.raises(openai.NotFoundError) as refusal:
        client.chat.completions.create(**{**CHAT, "model": "gpt-9"})
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")
    assert "default" in refusal.value.message


@pytest.mark.parametrize(
    ("change", "param"),
    [({"messages": []}, "messages"), ({"temperature": "hot"}, "temperature")],
)
def test_invalid_field_is_bad_request_with_param(client: OpenAI, change: dict[str, Any], param: str | None):
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(**{**CHAT, **change})
    assert refusal.value.param == param


@pytest.mark.parametrize("stream", [False, True])
def test_oversized_prompt_is_context_length_error(client: OpenAI, stream: bool):
    long = [{"role": "user", "content": "hello world " * 2000}]
    with pytest.raises(openai.BadRequestError, match="context") as refusal:
        client.chat.completions.create(**{**CHAT, "messages": long}, stream=stream)
    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
def test_limit_beyond_context_is_cut_to_remaining_room(client: OpenAI, limit: str, stream: bool):
    request_body = {
        **{name: value for name, value in CHAT.items() if name != "max_tokens"},
        limit: 32_000,
        "stream": stream,
    }
    answer = client.chat.completions.create(**request_body)
    last = [chunk for chunk in answer if chunk.choices][-1] if stream else answer
    assert last.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tools": [{"type": "function"}]}, "Failed to parse tools"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "image input is not supported"),
        ({"messages": [{"role": "user", "content": [AUDIO]}]}, "audio input is not supported"),
    ],
)
def test_engine_500_for_invalid_input_is_client_400(
    client: OpenAI, fast: Home, change: dict[str, Any], words: str, stream: bool
):
    with pytest.raises(openai.BadRequestError, match=words) as refusal:
        client.chat.completions.create(**{**CHAT, **change}, stream=stream)
    assert refusal.value.response.headers["x-should-retry"] == "false"
    assert fast.pool()["ready"]

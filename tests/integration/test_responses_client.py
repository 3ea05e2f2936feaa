"""The openai package's Responses API, synchronous and asynchronous, against a HOME_PROFILE with a real llama-server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home
from tests.integration.openai_home import client_of
from tests.unit.queen_rbee.response_events import check_events

ASKED: dict[str, Any] = {
    "model": "default",
    "input": "hello world",
    "max_output_tokens": 16,
    "temperature": 0,
    "extra_body": {"seed": 1},
}
PNG = "data:image/png;base64,aGVsbG8="


class Choice(BaseModel):
    """A structured answer."""

    colour: Literal["red", "blue"]


@pytest.fixture(scope="module")
def storing(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home that stores responses."""
    directory = tmp_path_factory.mktemp("storing")
    with home(directory, llama_server_tar, tiny_model, ORCHD_RESPONSE_STORE_BYTES="1000000") as running:
        yield running


@pytest.fixture
def client(storing: Home) -> Iterator[OpenAI]:
    with client_of(storing) as opened:
        yield opened


def test_response_reports_engine_token_counts(client: OpenAI):
    found = client.responses.create(**ASKED, instructions="be brief", extra_headers={"X-Correlation-Id": "mine"})
    assert found.output_text
    assert (found.status, found._request_id) == ("incomplete", "mine")
    assert found.incomplete_details
    assert found.incomplete_details.reason == "max_output_tokens"
    assert found.usage
    assert found.usage.output_tokens == 16
    assert found.usage.input_tokens > 0


def test_stream_has_published_events_and_equals_document(client: OpenAI):
    with client.responses.create(**ASKED, stream=True) as stream:
        events = [event.model_dump(mode="json", exclude_unset=True) for event in stream]
    streamed = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
    check_events(events)
    assert len(events) > 12
    assert streamed == client.responses.create(**ASKED).output_text


def test_package_assembles_stream(client: OpenAI):
    body: Any = {**ASKED, "max_output_tokens": 900, "extra_body": {"seed": 1, "stop": ["e"]}}
    with client.responses.stream(**body) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert (final.status, final.output_text) == ("completed", "".join(pieces))


def test_optional_request_fields_are_accepted(client: OpenAI):
    tools: Any = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
    found = client.responses.create(
        model="default",
        input=[{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hello"}],
        max_output_tokens=4,
        tools=tools,
        tool_choice="auto",
        parallel_tool_calls=True,
        temperature=0.5,
        top_p=0.9,
        reasoning={"effort": "low", "summary": "auto"},
        text={"verbosity": "low"},
        include=["reasoning.encrypted_content"],
        metadata={"a": "b"},
        prompt_cache_key="k",
        store=False,
        truncation="disabled",
        service_tier="auto",
        user="someone",
        extra_body={"top_k": 5, "an_option_of_tomorrow": {"really": True}},
    )
    assert (found.usage and found.usage.output_tokens, found.metadata) == (4, {"a": "b"})


def test_answer_follows_requested_schema(client: OpenAI):
    parsed = client.responses.parse(model="default", input="hello", text_format=Choice, max_output_tokens=200)
    assert isinstance(parsed.output_parsed, Choice)


def test_stored_response_is_continued_read_and_deleted(client: OpenAI):
    first = client.responses.create(**ASKED)
    second = client.responses.create(**{**ASKED, "input": "and more"}, previous_response_id=first.id)
    assert second.usage
    assert first.usage
    assert second.usage.input_tokens > first.usage.input_tokens + 10
    assert client.responses.retrieve(first.id).output_text == first.output_text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(**ASKED, previous_response_id=second.id)
    assert refusal.value.code == "previous_response_not_found"


@pytest.mark.parametrize(
    ("wrong", "exception", "param"),
    [
        ({"input": [{"role": "user"}]}, "BadRequestError", "input[0].content"),
        ({"tools": [{"type": "web_search"}]}, "BadRequestError", "tools[0].type"),
        ({"background": True}, "BadRequestError", "background"),
        ({"input": "hello " * 3000}, "BadRequestError", "input"),
        ({"model": "gpt-7"}, "NotFoundError", "model"),
    ],
)
def test_invalid_request_raises_matching_exception(client: OpenAI, wrong: Any, exception: str, param: str):
    for stream in (False, True):
        with pytest.raises(openai.APIStatusError) as refusal:
            client.responses.create(**{**ASKED, **wrong}, stream=stream)
        assert (type(refusal.value).__name__, refusal.value.param) == (exception, param)


def test_unsupported_image_is_refused_and_engine_goes_on(client: OpenAI):
    parts = [{"type": "input_text", "text": "What?"}, {"type": "input_image", "image_url": PNG, "detail": "auto"}]
    with pytest.raises(openai.BadRequestError, match="image input is not supported"):
        client.responses.create(**{**ASKED, "input": [{"role": "user", "content": parts}]})
    assert client.responses.create(**ASKED).output_text


async def test_async_client_gets_same_answers(storing: Home, client: OpenAI):
    async with openai.AsyncOpenAI(base_url=f"{storing.url}/v1", api_key="none", max_retries=0) as waiting:
        found = await waiting.responses.create(**ASKED)
    assert found.output_text == client.responses.create(**ASKED).output_text

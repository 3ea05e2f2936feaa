"""OpenAI requests are parsed, or refused with the wrong fields named, and reach the engine unchanged."""

import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.openai import MAX_DOCUMENTS, MAX_MESSAGES, MAX_TEXTS
from llama_orch.contracts.tasks import PlacementWish
from llama_orch.engines.wire.passage import Endpoint
from queen_rbee.api.v1.openai_requests import BODIES, OpenAiRequest, parse_request, task_request
from queen_rbee.pools.model_lookup import ModelTarget

HELLO = {"role": "user", "content": "hello"}
LEAST: dict[Endpoint, dict[str, object]] = {
    "chat": {"messages": [HELLO]},
    "completions": {"prompt": "hello"},
    "embeddings": {"input": "hello"},
    "rerank": {"query": "hello", "documents": ["world"]},
}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = sorted({name for body in BODIES.values() for name in body.model_fields})


def wrong_fields(endpoint: Endpoint, body: object) -> list[str]:
    """Return the fields that a 400 names."""
    with pytest.raises(ApiError) as refusal:
        parse_request(endpoint, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert refusal.value.status == 400
    assert refusal.value.body.fields
    return [item.field for item in refusal.value.body.fields]


def request(
    endpoint: Endpoint = "chat", target: ModelTarget | None = None, headers: dict[str, str] | None = None, **more
):
    """Return the task for admission."""
    parsed = parse_request(endpoint, json.dumps({**LEAST[endpoint], **more}).encode())
    return task_request(parsed.parsed, endpoint, target or ModelTarget(), headers or {})


@pytest.mark.parametrize("endpoint", BODIES)
def test_unknown_fields_reach_engine(endpoint: Endpoint):
    body = {**LEAST[endpoint], "grammar": "root ::= [a-z]", "nested": {"a": [1, 2.5, None, "ß\u0000😀"]}, "user": 7}
    data = json.dumps(body).encode()
    parsed = parse_request(endpoint, data)
    assert parsed.passage.body == body
    assert (parsed.passage.endpoint, parsed.passage.size) == (endpoint, len(data))


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "12 degrees"},
        {"role": "developer", "content": None, "reasoning_content": "hm"},
    ],
)
def test_messages_of_all_roles_and_parts_are_accepted(message: dict[str, object]):
    parsed = parse_request("chat", json.dumps({"messages": [message]}).encode())
    assert parsed.passage.body["messages"] == [message]


@pytest.mark.parametrize(
    ("endpoint", "change", "field"),
    [
        ("chat", {"messages": None}, "messages"),
        ("chat", {"messages": []}, "messages"),
        ("chat", {"messages": "hello"}, "messages"),
        ("chat", {"messages": [HELLO, "hello"]}, "messages[1]"),
        ("chat", {"messages": [{"content": "hello"}]}, "messages[0].role"),
        ("chat", {"messages": [{**HELLO, "role": 1}]}, "messages[0].role"),
        ("chat", {"model": 7}, "model"),
        ("chat", {"model": "m" * 513}, "model"),
        ("chat", {"max_tokens": "12"}, "max_tokens"),
        ("chat", {"max_tokens": True}, "max_tokens"),
        ("chat", {"max_completion_tokens": -2}, "max_completion_tokens"),
        ("chat", {"max_tokens": 10**9}, "max_tokens"),
        ("chat", {"stream": "true"}, "stream"),
        ("chat", {"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ("chat", {"n": 0}, "n"),
        ("chat", {"seed": 1.5}, "seed"),
        ("chat", {"temperature": "hot"}, "temperature"),
        ("chat", {"top_p": True}, "top_p"),
        ("chat", {"stop": 3}, "stop"),
        ("chat", {"stop": ["a", 3]}, "stop"),
        ("chat", {"tools": "f"}, "tools"),
        ("chat", {"tools": [{"function": {}}]}, "tools[0].type"),
        ("chat", {"response_format": "json"}, "response_format"),
        ("completions", {"prompt": None}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"logprobs": True}, "logprobs"),
        ("completions", {"logprobs": 101}, "logprobs"),
        ("chat", {"logprobs": True, "top_logprobs": 101}, "top_logprobs"),
        ("embeddings", {"input": []}, "input"),
        ("embeddings", {"input": {"text": "hello"}}, "input"),
        ("embeddings", {"encoding_format": "hex"}, "encoding_format"),
        ("rerank", {"query": None}, "query"),
        ("rerank", {"documents": []}, "documents"),
    ],
)
def test_wrong_field_is_named_by_its_path(endpoint: Endpoint, change: dict[str, object], field: str):
    assert wrong_fields(endpoint, {**LEAST[endpoint], **change}) == [field]


def test_all_wrong_fields_are_named_at_once():
    assert wrong_fields("chat", {"stream": 1, "n": "2"}) == ["stream", "n", "messages"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"messages": [{"role": "user", "content": NaN}]}',
        b'{"messages": [{"role": "user", "content": 1e999}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"messages": ' + b"[" * 1_000_000,
        b'{"seed": ' + b"1" * 5000 + b"}",
    ],
)
def test_invalid_json_is_refused(body: bytes):
    assert wrong_fields("chat", body) == ["body"]


def outcome(endpoint: Endpoint, body: bytes) -> OpenAiRequest | ApiError:
    """Parse `body`. Any other exception is a defect."""
    try:
        return parse_request(endpoint, body)
    except ApiError as error:
        return error


@given(st.sampled_from(sorted(BODIES)), st.binary(max_size=200) | ANY_JSON.map(json.dumps).map(str.encode))
def test_any_bytes_are_parsed_or_400(endpoint: Endpoint, body: bytes):
    found = outcome(endpoint, body)
    assert isinstance(found, OpenAiRequest) or found.status == 400


@given(st.sampled_from(sorted(BODIES)), st.dictionaries(st.sampled_from(FIELDS), ANY_JSON, max_size=3))
def test_any_value_in_known_field_is_parsed_or_named(endpoint: Endpoint, change: dict[str, object]):
    body = {**LEAST[endpoint], **change}
    found = outcome(endpoint, json.dumps(body).encode())
    if isinstance(found, OpenAiRequest):
        assert found.passage.body == {name: value for name, value in body.items() if name != "keep_alive"}
        task_request(found.parsed, endpoint, ModelTarget(), {})
    else:
        named = {item.field.partition("[")[0].partition(".")[0] for item in found.body.fields or ()}
        assert named <= {*change, "body"}


@pytest.mark.parametrize("keep_alive", ["5m", 90, 0, -1])
def test_keep_alive_is_for_the_queen_and_not_for_the_engine(keep_alive: str | int):
    body = {**LEAST["chat"], "keep_alive": keep_alive}
    found = outcome("chat", json.dumps(body).encode())
    assert isinstance(found, OpenAiRequest)
    assert found.passage.body == LEAST["chat"]
    assert task_request(found.parsed, "chat", ModelTarget(), {}).keep_alive == keep_alive


def test_task_has_size_and_seed_but_no_prompt():
    found = request(max_tokens=5, max_completion_tokens=9, seed=3)
    assert (found.workload, found.max_tokens, found.seed, found.prompt, found.inputs) == ("completion", 9, 3, None, ())
    assert request("embeddings").workload == "embedding"
    assert request("rerank").workload == "rerank"


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63])
def test_seed_and_size_out_of_task_range_are_left_to_engine(seed: int):
    found = request(seed=seed, max_tokens=-1)
    assert (found.seed, found.max_tokens) == (None, None)


def test_pool_target_is_a_pin_and_model_target_a_ref():
    assert request(target=ModelTarget(model_ref="hf:a/b.gguf")).model_ref == "hf:a/b.gguf"
    assert request(target=ModelTarget(pool_id="p")).placement == PlacementWish(mode="pin", pin_pool_id="p")
    assert request().placement is None


def test_own_headers_become_task_fields():
    session = "6f9619ff-8b86-d011-b42d-00c04fc964ff"
    found = request(headers={"x-session-id": session, "x-priority": "batch", "x-deadline-ms": "1500"})
    assert (found.session_id, found.priority, found.deadline_ms) == (UUID(session), "batch", 1500)


@pytest.mark.parametrize(
    ("header", "value"),
    [("X-Session-Id", "me"), ("X-Priority", "high"), ("X-Deadline-Ms", "soon"), ("X-Deadline-Ms", "0")],
)
def test_wrong_header_is_named(header: str, value: str):
    with pytest.raises(ApiError) as refusal:
        request(headers={header.lower(): value})
    assert [item.field for item in refusal.value.body.fields or ()] == [header]


def test_stream_and_usage_are_off_unless_requested():
    plain = parse_request("chat", json.dumps(LEAST["chat"]).encode())
    assert (plain.streamed, plain.wants_usage) == (False, False)
    wanted = {**LEAST["chat"], "stream": True, "stream_options": {"include_usage": True}}
    streamed = parse_request("chat", json.dumps(wanted).encode())
    assert (streamed.streamed, streamed.wants_usage) == (True, True)
    vectors = parse_request("embeddings", json.dumps({**LEAST["embeddings"], "stream": True}).encode())
    assert not vectors.streamed


@pytest.mark.parametrize(
    ("endpoint", "body", "words"),
    [
        ("chat", {"messages": [{"role": "user"}] * (MAX_MESSAGES + 1)}, "10000"),
        ("chat", {"messages": [1] * 1000}, "messages[0]"),
        ("chat", {"messages": [{"role": "user"}], "tools": [1] * 1000}, "tools[0]"),
        ("completions", {"prompt": ["a"] * (MAX_TEXTS + 1)}, "several requests"),
        ("embeddings", {"input": [[1]] * (MAX_TEXTS + 1)}, "several requests"),
        ("rerank", {"query": "q", "documents": ["a"] * (MAX_DOCUMENTS + 1)}, "10000"),
    ],
)
def test_lists_have_bounds_and_name_first_wrong_item(endpoint: Endpoint, body: object, words: str):
    with pytest.raises(ApiError) as refused:
        parse_request(endpoint, json.dumps(body).encode())
    assert words in refused.value.body.message
    assert len(refused.value.body.fields or ()) == 1


def test_prompt_of_token_ids_is_accepted():
    assert parse_request("completions", json.dumps({"prompt": [1] * 100_000}).encode())


def test_equal_bodies_have_equal_marks():
    bodies = [b'{"prompt":"a"}', b'{"prompt":"a"}', b'{"prompt":"b"}']
    first, again, other = (parse_request("completions", body).passage.mark for body in bodies)
    assert first == again != other

"""The request of each adapter for a task: complete, and without anything that the engine would reject."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.adapters import adapters
from llama_orch.engines.wire.passage import Endpoint, Passage

FULL: dict[str, Any] = {
    "prompt": "hello",
    "max_tokens": 9,
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.1,
    "repeat_penalty": 1.1,
    "seed": 7,
    "stop": ["a", "b"],
}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
CHAT: dict[str, Any] = {
    "model": "mine",
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [{"type": "function"}],
}


def request_body(engine: str, **request: Any) -> Any:
    return json.loads(adapters()[engine].call(TaskRequest(**request), None, "served").body)


def passage_body(engine: str, endpoint: Endpoint, body: dict[str, Any], **request: Any) -> Any:
    passage = Passage(endpoint, body, 1)
    return json.loads(adapters()[engine].call(TaskRequest(**request), passage, "served").body)


def test_llama_server_gets_all_parameters_of_a_task() -> None:
    assert request_body("llamacpp", **FULL) == {
        "prompt": "hello",
        "stream": True,
        "n_predict": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repeat_penalty": 1.1,
        "seed": 7,
        "stop": ["a", "b"],
    }


def test_vllm_gets_served_name_and_own_sampling_parameters() -> None:
    assert request_body("vllm", **FULL) == {
        **STREAM,
        "model": "served",
        "prompt": "hello",
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "seed": 7,
        "stop": ["a", "b"],
    }


def test_vllm_gets_null_for_unset_max_tokens() -> None:
    assert request_body("vllm", prompt="hello") == {**STREAM, "model": "served", "prompt": "hello", "max_tokens": None}


def test_openai_server_gets_only_openai_parameters() -> None:
    assert request_body("openai-http", **FULL) == {
        **STREAM,
        "model": "served",
        "prompt": "hello",
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["a", "b"],
    }


def test_tgi_gets_parameters_and_details() -> None:
    assert request_body("tgi", **FULL) == {
        "inputs": "hello",
        "parameters": {
            "details": True,
            "do_sample": True,
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 40,
            "repetition_penalty": 1.1,
            "seed": 7,
            "max_new_tokens": 9,
            "stop": ["a", "b"],
        },
    }


@pytest.mark.parametrize("greedy", [{"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.7, "top_p": 0.0}])
def test_tgi_decodes_greedily_for_zero_temperature_or_top_p(greedy: dict[str, float]) -> None:
    assert request_body("tgi", prompt="x", **greedy)["parameters"] == {"details": True, "do_sample": False}


@given(
    temperature=st.none() | st.floats(0, 100),
    top_p=st.none() | st.floats(0, 1),
    top_k=st.none() | st.integers(0, 1_000_000),
    repeat_penalty=st.none() | st.floats(0, 100),
)
def test_tgi_never_gets_values_it_rejects(**sampling: float | None) -> None:
    parameters = request_body("tgi", prompt="x", **sampling)["parameters"]
    assert parameters.get("temperature", 1) > 0
    assert 0 < parameters.get("top_p", 0.5) < 1
    assert parameters.get("top_k", 1) > 0
    assert parameters.get("repetition_penalty", 1) > 0


def test_triton_gets_names_of_all_back_ends_at_once() -> None:
    body = request_body("triton", **FULL)
    assert json.loads(body.pop("sampling_parameters")) == {
        "max_tokens": 9,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "seed": 7,
        "stop": ["a", "b"],
    }
    assert body["text_input"] == "hello"
    assert body["stream"] is body["streaming"] is body["exclude_input_in_output"] is True
    assert (body["max_tokens"], body["sampling_param_max_tokens"]) == (9, 9)
    assert (body["seed"], body["random_seed"], body["sampling_param_seed"]) == (7, 7, 7)
    assert (body["temperature"], body["sampling_param_temperature"]) == (0.7, 0.7)


@given(st.sampled_from([FULL, {"prompt": "x"}, {"prompt": "x", "stop": ["one"]}]))
def test_triton_gets_no_lists(request: dict[str, Any]) -> None:
    assert all(isinstance(value, str | int | float | bool) for value in request_body("triton", **request).values())


@pytest.mark.parametrize(
    ("task_fields", "max_tokens"), [({}, 512), ({"expected_tokens": 40}, 40), ({"max_tokens": 3}, 3)]
)
def test_triton_always_gets_max_tokens(task_fields: dict[str, int], max_tokens: int) -> None:
    assert request_body("triton", prompt="x", **task_fields)["max_tokens"] == max_tokens


def test_triton_model_name_is_one_path_segment() -> None:
    dialogue = adapters()["triton"].call(TaskRequest(prompt="x"), None, "../a b/?c")
    assert dialogue.path == "/v2/models/..%2Fa%20b%2F%3Fc/generate_stream"


def test_triton_requires_a_model_name() -> None:
    with pytest.raises(ValueError, match="set model_ref to one of them"):
        adapters()["triton"].call(TaskRequest(prompt="x"), None, None)


@pytest.mark.parametrize(
    ("task_fields", "cache_prompt"),
    [
        ({}, None),
        ({"kv_hint": "reuse"}, True),
        ({"kv_hint": "cold"}, False),
        ({"kv_hint": "reuse", "determinism": "strict"}, False),
    ],
)
def test_llama_server_cache_follows_kv_hint_and_determinism(
    task_fields: dict[str, str], cache_prompt: bool | None
) -> None:
    assert request_body("llamacpp", prompt="x", **task_fields).get("cache_prompt") is cache_prompt
    assert passage_body("llamacpp", "chat", CHAT, **task_fields).get("cache_prompt") is cache_prompt
    assert "cache_prompt" not in passage_body("llamacpp", "embeddings", {"input": "x"}, **task_fields)


@pytest.mark.parametrize("engine", ["llamacpp", "vllm", "openai-http", "tgi"])
def test_seed_of_the_task_is_a_default(engine: str) -> None:
    assert passage_body(engine, "chat", CHAT, seed=3)["seed"] == 3
    assert passage_body(engine, "chat", {**CHAT, "seed": 1}, seed=3)["seed"] == 1
    assert "seed" not in passage_body(engine, "chat", CHAT)


@pytest.mark.parametrize(("engine", "model"), [("llamacpp", "mine"), ("vllm", "served"), ("tgi", "tgi")])
def test_chat_is_passed_on_as_a_stream_with_counts(engine: str, model: str) -> None:
    body = {**CHAT, "stream": False, "stream_options": {"include_usage": False}, "logit_bias": {"1": None}}
    assert passage_body(engine, "chat", body) == {**body, **STREAM, "model": model}


def test_other_stream_options_are_passed_on() -> None:
    options = {"continuous_usage_stats": True, "include_usage": False}
    sent = passage_body("vllm", "chat", {**CHAT, "stream": True, "stream_options": options})["stream_options"]
    assert sent == {"continuous_usage_stats": True, "include_usage": True}
    assert "stream_options" not in passage_body("llamacpp", "chat", {**CHAT, "stream": True, "stream_options": None})


def test_unknown_model_keeps_the_clients_name() -> None:
    dialogue = adapters()["vllm"].call(TaskRequest(), Passage("chat", CHAT, 1), None)
    assert json.loads(dialogue.body)["model"] == "mine"


@pytest.mark.parametrize("endpoint", ["embeddings", "rerank"])
def test_embeddings_and_rerank_are_not_streamed(endpoint: Endpoint) -> None:
    body = passage_body("vllm", endpoint, {"input": "x", "stream": True}, seed=1)
    assert body == {"input": "x", "model": "served"}


def test_tgi_gets_no_top_p_of_1() -> None:
    assert "top_p" not in passage_body("tgi", "chat", {**CHAT, "top_p": 1})
    assert passage_body("tgi", "chat", {**CHAT, "top_p": 0.5})["top_p"] == 0.5


def test_text_is_sent_as_utf8_without_lone_surrogates() -> None:
    body = adapters()["vllm"].call(TaskRequest(), Passage("completions", {"prompt": "é\ud800"}, 1), None).body
    assert "é?".encode() in body

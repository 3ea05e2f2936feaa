"""Answers name the model as the client did, and never by a path."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.client_view import ClientView
from llama_orch.engines.wire.llamacpp_passage import LlamaCppPassage
from llama_orch.engines.wire.model_names import public_name
from llama_orch.engines.wire.passage import Passage
from llama_orch.engines.wire.vllm import Vllm
from queen_rbee.pools.candidates import public_pool
from tests.unit.queen_rbee.pools.test_capabilities import pool

PATH = "/srv/models/tiny.gguf"
TEXT = st.text(st.sampled_from('"model:\\,{}/ \n\u00e9'), max_size=20)


def shown(raw: dict[str, object], **body) -> dict[str, object]:
    """`raw` as the client that sent `body` gets it."""
    found: dict[str, object] = json.loads(ClientView(Passage("chat", body, 1))(json.dumps(raw)))
    return found


@pytest.mark.parametrize(
    ("asked", "reported", "name"),
    [
        ("gpt-4", PATH, "gpt-4"),
        (PATH, "tiny", PATH),
        (None, PATH, "tiny"),
        ("", f"file:{PATH}", "tiny"),
        (None, "org/served", "org/served"),
    ],
)
def test_model_has_the_name_the_client_used(asked: str | None, reported: str, name: str):
    body = {} if asked is None else {"model": asked}
    assert shown({"id": "c", "model": reported, "choices": []}, **body)["model"] == name


@given(TEXT, TEXT, TEXT)
def test_only_the_model_is_changed(content: str, name: str, reported: str):
    chunk: dict[str, object] = {
        "choices": [{"delta": {"content": content, "reasoning": name}}],
        "model": reported,
        "n": 1,
    }
    assert shown(chunk, model="x") == {**chunk, "model": "x"}
    assert shown({"choices": [{"delta": {"content": content}}]}, model="x") == {
        "choices": [{"delta": {"content": content}}]
    }


@pytest.mark.parametrize(
    ("body", "asked", "left"),
    [
        ({"logprobs": True}, 1, 0),
        ({"logprobs": True, "top_logprobs": 0}, 1, 0),
        ({"logprobs": True, "top_logprobs": 2}, 2, 1),
        ({}, None, 1),
    ],
)
def test_chat_without_top_logprobs_gets_no_alternatives(body: dict[str, JsonValue], asked: int | None, left: int):
    passage = Passage("chat", {"messages": [], **body}, 1)
    assert json.loads(LlamaCppPassage(passage, {}).body).get("top_logprobs") == asked
    token = {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "a", "logprob": -1.0}]}
    raw: dict[str, object] = {"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [token]}}]}
    [choice] = json.loads(ClientView(passage)(json.dumps(raw)))["choices"]
    assert choice["logprobs"]["content"][0]["logprob"] == -1.0
    assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == left


def test_only_the_last_progress_report_is_passed_on():
    passage = Passage("chat", {"messages": []}, 1, counts_first=True)
    dialogue = LlamaCppPassage(passage, {})
    assert json.loads(dialogue.body)["return_progress"] is True
    report = {
        "choices": [{"delta": {"role": "assistant"}}],
        "prompt_progress": {"total": 9, "cache": 0, "processed": 4},
    }
    assert dialogue.event(json.dumps(report)) == []
    report["prompt_progress"] = {"total": 9, "cache": 0, "processed": 9}
    assert len(dialogue.event(json.dumps(report))) == 1


def test_vllm_is_asked_for_early_counts_on_request():
    for first in (True, False):
        body = json.loads(Vllm().call(TaskRequest(), Passage("chat", {}, 1, first), "m").body)
        assert body["stream_options"].get("continuous_usage_stats", False) is first


def test_pool_status_hides_paths_of_models():
    known = pool("p", models_available=[f"file:{PATH}", "hf:org/a.gguf"], model_digests={f"file:{PATH}": "sha256:1"})
    found = public_pool(known)
    assert (found.models_available, found.model_digests) == (["tiny", "hf:org/a.gguf"], {"tiny": "sha256:1"})
    assert public_name("hf:org/a.gguf") == "hf:org/a.gguf"

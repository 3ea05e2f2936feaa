"""Bodies are validated strictly: values are not converted between JSON types."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from llama_orch.contracts.catalog import ModelState, ModelStateChange, NewModel
from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.nodes import Heartbeat
from llama_orch.contracts.openai import MAX_MESSAGES, MAX_TOOLS
from llama_orch.contracts.sessions import SessionChange
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.http.server.bodies import PROBLEM_LIMIT, invalid
from llama_orch.http.server.bodies import parsed as parsed_body
from queen_rbee.api.v1.messages.request import MessagesRequest
from queen_rbee.api.v1.messages.request import parse as parse_message

MODEL = {"id": "m", "model_ref": "file:/m.gguf"}
MESSAGE = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("model", "body", "field"),
    [
        (SessionChange, {"max_turns": "8"}, "max_turns"),
        (SessionChange, {"max_turns": True}, "max_turns"),
        (SessionChange, {"max_turns": 8.0}, "max_turns"),
        (SessionChange, {"cost_budget": False}, "cost_budget"),
        (SessionChange, {"cost_budget": "1"}, "cost_budget"),
        (NewModel, {**MODEL, "cost_per_1k_tokens": "0.5"}, "cost_per_1k_tokens"),
        (TaskRequest, {"prompt": "a", "max_tokens": "8"}, "max_tokens"),
        (TaskRequest, {"prompt": "a", "placement": {"allow_fallback": "yes"}}, "placement.allow_fallback"),
        (MessagesRequest, {**MESSAGE, "max_tokens": "8"}, "max_tokens"),
        (MessagesRequest, {**MESSAGE, "stream": "true"}, "stream"),
        (MessagesRequest, {**MESSAGE, "temperature": "1"}, "temperature"),
    ],
)
def test_strings_are_not_coerced_to_numbers_or_booleans(model: type[BaseModel], body: Any, field: str):
    read = parse_message if model is MessagesRequest else parsed_body
    with pytest.raises(ApiError) as refused:
        read(model, json.dumps(body).encode())
    assert [problem.field for problem in refused.value.body.fields or ()] == [field]


def test_types_without_json_form_are_read_from_text_and_lists():
    task_id = "4f0c6f6e-7d8b-4a52-9a53-0d1f3c1b7a10"
    body = {"task_id": task_id, "prompt": "a", "stop": ["b"], "placement": {"prefer_pools": ["p"]}, "temperature": 1}
    task = parsed_body(TaskRequest, json.dumps(body).encode())
    assert (str(task.task_id), task.stop, task.temperature) == (task_id, ("b",), 1.0)
    assert task.placement
    assert task.placement.prefer_pools == ("p",)
    assert parsed_body(ModelStateChange, b'{"state": "Retired"}').state is ModelState.RETIRED


def test_nested_blocks_are_read():
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "a"}]}
    told = {**MESSAGE, "system": [{"type": "text", "text": "b"}], "messages": [{"role": "user", "content": [result]}]}
    message = parse_message(MessagesRequest, json.dumps(told).encode())
    assert message.model_dump(mode="json", include={"system", "messages"}) == {
        "system": [{"type": "text", "text": "b"}],
        "messages": [{"role": "user", "content": [{**result, "is_error": None}]}],
    }


@pytest.mark.parametrize("name", ["messages", "tools", "stop_sequences", "system"])
def test_first_wrong_list_item_is_named(name: str):
    with pytest.raises(ApiError) as refused:
        parse_message(MessagesRequest, json.dumps({**MESSAGE, name: [1] * 1000}).encode())
    assert [problem.field for problem in refused.value.body.fields or ()] == [f"{name}.0"]


@pytest.mark.parametrize("content", [[1] * 1000, [{"type": "tool_result", "tool_use_id": "t", "content": [1] * 1000}]])
def test_first_wrong_block_is_named(content: Any):
    with pytest.raises(ApiError) as refused:
        parse_message(
            MessagesRequest, json.dumps({**MESSAGE, "messages": [{"role": "user", "content": content}]}).encode()
        )
    assert len(refused.value.body.fields or ()) == 1


@pytest.mark.parametrize(("name", "most"), [("messages", MAX_MESSAGES), ("tools", MAX_TOOLS)])
def test_conversation_length_is_bounded(name: str, most: int):
    tool = {"name": "t", "input_schema": {}}
    item = MESSAGE["messages"][0] if name == "messages" else tool  # type: ignore[index]
    assert parse_message(MessagesRequest, json.dumps({**MESSAGE, name: [item] * most}).encode())
    with pytest.raises(ApiError, match=str(most)):
        parse_message(MessagesRequest, json.dumps({**MESSAGE, name: [item] * (most + 1)}).encode())


def test_problem_list_is_bounded():
    refused = invalid((f"field{number}", "is wrong") for number in range(1000))
    assert len(refused.fields or ()) == PROBLEM_LIMIT
    assert refused.message.endswith("and 980 more")


def test_many_wrong_digests_are_one_problem():
    pool = {"pool_id": "p", "node_id": "n", "ready": True, "draining": False, "slots_free": 1, "slots_total": 1}
    pools = [{**pool, "engine": "e", "model_digests": {str(number): 1 for number in range(5000)}}] * 2
    with pytest.raises(ApiError) as refused:
        parsed_body(Heartbeat, json.dumps({"timestamp": "2026-01-01T00:00:00Z", "pools": pools}).encode())
    assert [problem.field for problem in refused.value.body.fields or ()] == ["pools.0.model_digests"]

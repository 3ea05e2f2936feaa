"""GET /v1/models in the formats of OpenAI and Anthropic."""

from datetime import UTC, datetime

import pytest
from anthropic.types import ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.openai import AnthropicModels
from queen_rbee.api.v1.models import anthropic_page
from queen_rbee.pools.model_lookup import ModelListing
from tests.unit.queen_rbee.v1_client import V1Exchange, V1Server, v1_server

NAMES = ["p", "hf:org/repo/tiny.gguf"]


async def ask_anthropic(running: V1Server, path: str = "/v1/models") -> V1Exchange:
    """Send a request as Anthropic's clients do."""
    return await running.ask(path, method="GET", anthropic_version="2023-06-01")


def list_models(*names: str) -> list[ModelListing]:
    return [ModelListing(name, None, ("p",), True, 512) for name in names]


def names_of(found: AnthropicModels) -> list[str]:
    return [model.id for model in found.data]


async def test_anthropic_clients_are_recognized_by_header():
    async with v1_server() as running:
        answer = await ask_anthropic(running)
        assert [model["id"] for model in answer.json["data"]] == NAMES
        assert (answer.json["has_more"], answer.json["first_id"], answer.json["last_id"]) == (False, *NAMES)
        assert "object" not in answer.json
        assert (await running.ask("/v1/models", method="GET")).json["object"] == "list"


async def test_model_parses_with_anthropic_package():
    async with v1_server() as running:
        running.queen.pool(models_available=["hf:org/repo/tiny.gguf"], ctx_max=512)
        for name in NAMES:
            model = ModelInfo.model_validate((await ask_anthropic(running, f"/v1/models/{name}")).json)
            assert (model.id, model.display_name, model.type, model.lifecycle) == (name, name, "model", "active")
            assert (model.created_at, model.max_input_tokens) == (datetime.fromtimestamp(0, UTC), 512)


async def test_errors_have_anthropic_format_and_request_id():
    async with v1_server() as running:
        answer = await ask_anthropic(running, "/v1/models/gpt-9")
        assert (answer.status, answer.error["type"]) == (404, "not_found_error")
        assert answer.headers["request-id"] == answer.headers["x-correlation-id"]
        for query in ("limit=0", "limit=1001", "limit=many", "after_id=gpt-9", "before_id="):
            wrong = await ask_anthropic(running, f"/v1/models?{query}")
            assert (wrong.status, wrong.error["type"]) == (400, "invalid_request_error")
            assert query.partition("=")[0] in wrong.error["message"]


async def test_query_selects_page():
    async with v1_server() as running:
        first = await ask_anthropic(running, "/v1/models?limit=1")
        rest = await ask_anthropic(running, "/v1/models?after_id=p")
        assert [model["id"] for model in first.json["data"]] == NAMES[:1]
        assert [model["id"] for model in rest.json["data"]] == NAMES[1:]


@given(count=st.integers(0, 30), limit=st.integers(1, 40))
def test_pages_list_every_name_once_in_both_directions(count: int, limit: int):
    found = list_models(*(f"m{number}" for number in range(count)))
    forwards, query = [], {"limit": str(limit)}
    while (got := anthropic_page(found, query)).data:
        forwards += names_of(got)
        assert len(got.data) <= limit
        assert got.has_more == (len(forwards) < count)
        query = {"limit": str(limit), "after_id": got.last_id or ""}
    backwards: list[str] = names_of(anthropic_page(found[-1:], {}))
    while backwards and (got := anthropic_page(found, {"limit": str(limit), "before_id": backwards[0]})).data:
        backwards = names_of(got) + backwards
        assert got.has_more == (len(backwards) < count)
    assert forwards == backwards == [item.name for item in found]


def test_after_id_and_before_id_bound_the_page():
    found = list_models(*"abcde")
    assert names_of(anthropic_page(found, {"after_id": "a", "before_id": "e"})) == ["b", "c", "d"]
    assert anthropic_page(found, {"after_id": "d", "before_id": "b"}) == AnthropicModels(data=[], has_more=False)


def test_unknown_after_id_is_refused():
    with pytest.raises(ApiError) as refusal:
        anthropic_page(list_models("a"), {"after_id": "b"})
    assert refusal.value.status == 400

"""Routes of /v1/models: the names that `model` can have, in OpenAI's or Anthropic's format."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel
from quart import Response, request

from llama_orch.contracts.errors import ApiError, not_found
from llama_orch.contracts.openai import AnthropicModel, AnthropicModels, ModelEntries, ModelEntry
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.error_shapes import ANTHROPIC_VERSION
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.mounting import json_response
from llama_orch.http.server.routes import JSON, gate_route, json_reply, route
from queen_rbee.keys.keyring import may_use_model
from queen_rbee.pools.model_lookup import ModelCatalog, ModelListing, find_listing, list_models
from queen_rbee.pools.registry import PoolRegistry

PAGE = 20
LARGEST_PAGE = 1000
"""Page sizes of Anthropic's API."""


class ModelRoutes:
    def __init__(self, registry: PoolRegistry, catalog: ModelCatalog) -> None:
        self._registry = registry
        self._catalog = catalog

    # served by the gate because clients ask for it on the connection on which they chat next
    @gate_route(
        "GET",
        "/v1/models",
        "List the names that `model` can have",
        {200: json_reply("The names.", ModelEntries, model="/data/0/id")},
    )
    async def list_names(self, exchange: Exchange) -> None:
        await exchange.body()
        listed = [item for item in list_models(self._catalog, self._registry.replicas) if may_use_model(item.name)]
        body: BaseModel
        if ANTHROPIC_VERSION in exchange.headers:
            body = anthropic_page(listed, exchange.query)
        else:
            body = ModelEntries(data=[*map(_openai_entry, listed)])
        await exchange.send(200, body.model_dump_json().encode(), [("content-type", JSON)])

    @route(
        "GET",
        "/v1/models/{model...}",
        "Get one of these names",
        {200: json_reply("The name.", ModelEntry)},
        errors=(409, 503),
    )
    async def get_name(self, model: str) -> Response:
        if not may_use_model(model):
            raise not_found("model", model, "See GET /v1/models.")
        found = find_listing(model, self._catalog, self._registry.replicas, self._registry.synced)
        anthropic = ANTHROPIC_VERSION in request.headers
        return json_response(_anthropic_entry(found) if anthropic else _openai_entry(found))


def anthropic_page(listed: Sequence[ModelListing], query: Mapping[str, str]) -> AnthropicModels:
    """Return the page that `limit`, `after_id` and `before_id` select. Raises ApiError 400."""
    limit, begin, end = _limit(query), 0, len(listed)
    if "after_id" in query:
        begin = _index(listed, query, "after_id") + 1
    if "before_id" in query:
        end = _index(listed, query, "before_id")
    backwards = "before_id" in query and "after_id" not in query
    page = listed[begin:end][-limit:] if backwards else listed[begin:end][:limit]
    return AnthropicModels(
        data=[*map(_anthropic_entry, page)],
        has_more=len(page) < max(0, end - begin),
        first_id=page[0].name if page else None,
        last_id=page[-1].name if page else None,
    )


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(PAGE))
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= LARGEST_PAGE:
        return int(text)
    raise ApiError(400, invalid([("limit", f"must be from 1 to {LARGEST_PAGE}")]))


def _index(listed: Sequence[ModelListing], query: Mapping[str, str], parameter: str) -> int:
    index = next((index for index, item in enumerate(listed) if item.name == query[parameter]), None)
    if index is None:
        raise ApiError(400, invalid([(parameter, "must be the id of a listed model")]))
    return index


def _anthropic_entry(item: ModelListing) -> AnthropicModel:
    return AnthropicModel(
        id=item.name,
        display_name=item.name,
        created_at=datetime.fromtimestamp(item.created or 0, UTC),
        max_input_tokens=item.ctx_max,
    )


def _openai_entry(item: ModelListing) -> ModelEntry:
    return ModelEntry(
        id=item.name,
        created=item.created or 0,
        ready=item.ready,
        pools=list(item.pools),
        ctx_max=item.ctx_max,
        workloads=list(item.workloads),
    )

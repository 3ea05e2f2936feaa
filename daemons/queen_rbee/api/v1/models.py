"""GET /v1/models: every name that `model` can have, as OpenAI's clients list them, and Anthropic's in their own way."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel
from quart import Response, request
from quart_trio import QuartTrio

from llama_orch.contracts.errors import ApiError
from llama_orch.contracts.openai import AnthropicModel, AnthropicModels, ModelEntries, ModelEntry
from llama_orch.http.server.bodies import invalid
from llama_orch.http.server.error_shapes import ANTHROPIC_VERSION
from llama_orch.http.server.exchange import Exchange, HotRoutes
from queen_rbee.pools.model_lookup import ModelCatalog, ModelListing, find_listing, list_models
from queen_rbee.pools.registry import PoolRegistry

JSON = "application/json"
PAGE = 20
LARGEST_PAGE = 1000
"""Anthropic's own figures."""


def add_model_list(routes: HotRoutes, registry: PoolRegistry, catalog: ModelCatalog) -> None:
    """Add the list, which programs ask for on the connection that they chat on next: so it must be a hot path too."""

    async def models(exchange: Exchange) -> None:
        await exchange.body()
        found = list_models(catalog, registry.replicas)
        anthropics = ANTHROPIC_VERSION in exchange.headers
        body: BaseModel = page(found, exchange.query) if anthropics else ModelEntries(data=[*map(_entry, found)])
        await exchange.send(200, body.model_dump_json().encode(), [("content-type", JSON)])

    routes.add("GET", "/v1/models", models)


def add_models(app: QuartTrio, registry: PoolRegistry, catalog: ModelCatalog) -> None:
    """Add the way to one model by its name, which may have slashes."""

    @app.get("/v1/models/<path:model>")
    async def named_model(model: str) -> Response:
        found = find_listing(model, catalog, registry.replicas, registry.synced)
        body: BaseModel = _anthropics(found) if ANTHROPIC_VERSION in request.headers else _entry(found)
        return Response(body.model_dump_json(), content_type=JSON)


def page(found: Sequence[ModelListing], query: Mapping[str, str]) -> AnthropicModels:
    """The page of `found` that `limit`, `after_id` and `before_id` ask for. Raises ApiError 400."""
    limit, begin, end = _limit(query), 0, len(found)
    if "after_id" in query:
        begin = _place(found, query, "after_id") + 1
    if "before_id" in query:
        end = _place(found, query, "before_id")
    backwards = "before_id" in query and "after_id" not in query
    shown = found[begin:end][-limit:] if backwards else found[begin:end][:limit]
    return AnthropicModels(
        data=[*map(_anthropics, shown)],
        has_more=len(shown) < max(0, end - begin),
        first_id=shown[0].name if shown else None,
        last_id=shown[-1].name if shown else None,
    )


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(PAGE))
    if text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= LARGEST_PAGE:
        return int(text)
    raise ApiError(400, invalid([("limit", f"must be from 1 to {LARGEST_PAGE}")]))


def _place(found: Sequence[ModelListing], query: Mapping[str, str], parameter: str) -> int:
    """Where the model stands that `parameter` names."""
    place = next((place for place, item in enumerate(found) if item.name == query[parameter]), None)
    if place is None:
        raise ApiError(400, invalid([(parameter, "is the id of no model that is listed")]))
    return place


def _anthropics(item: ModelListing) -> AnthropicModel:
    return AnthropicModel(
        id=item.name,
        display_name=item.name,
        created_at=datetime.fromtimestamp(item.created or 0, UTC),
        max_input_tokens=item.ctx_max,
    )


def _entry(item: ModelListing) -> ModelEntry:
    return ModelEntry(
        id=item.name,
        created=item.created or 0,
        ready=item.ready,
        pools=list(item.pools),
        ctx_max=item.ctx_max,
        workloads=list(item.workloads),
    )

"""Routes of Ollama's API that describe models: tags, ps, show, version."""

from datetime import UTC, datetime

from pydantic import BaseModel

from llama_orch.contracts.pools import PoolStatus
from llama_orch.http.server.exchange import Exchange
from llama_orch.http.server.routes import JSON, Deferred, RequestBody, gate_route, json_reply
from queen_rbee.api.ollama.declared import NAME_SHAPE, REQUESTS, schema
from queen_rbee.api.ollama.descriptions import listed, loaded, shown
from queen_rbee.api.ollama.names import find_model
from queen_rbee.pools.model_lookup import ModelCatalog, ModelListing, find_listing, list_models
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.residency.keeper import Keeper

OLLAMA_VERSION = "0.12.11"
"""The release whose API this is; clients refuse versions below those that they were made for."""


class OllamaModelRoutes:
    def __init__(self, registry: PoolRegistry, catalog: ModelCatalog, keeper: Keeper) -> None:
        self._registry = registry
        self._catalog = catalog
        self._keeper = keeper

    @gate_route(
        "GET",
        "/api/tags",
        "List the models (Ollama's API)",
        {200: json_reply("The same names as GET /v1/models.", schema("ModelTags"))},
    )
    async def ollama_tags(self, exchange: Exchange) -> None:
        from queen_rbee.api.ollama.schemas import ModelTags

        await exchange.body()
        pools = self._registry.pools()
        found = list_models(self._catalog, self._registry.replicas)
        await _send(exchange, ModelTags(models=[listed(each, _having(each, pools)) for each in found]))

    @gate_route(
        "GET",
        "/api/ps",
        "List the models in memory (Ollama's API)",
        {200: json_reply("The models of loaded pools.", schema("LoadedModels"))},
    )
    async def ollama_ps(self, exchange: Exchange) -> None:
        from queen_rbee.api.ollama.schemas import LoadedModels

        await exchange.body()
        pools = [self._keeper.with_idle_times(pool) for pool in self._registry.pools()]
        await _send(exchange, LoadedModels(models=loaded(pools, datetime.now(UTC))))

    @gate_route(
        "POST",
        "/api/show",
        "Describe a model (Ollama's API)",
        {200: json_reply("The model.", schema("ShownModel"))},
        body=RequestBody(Deferred(REQUESTS, "ShowRequest"), {"one": {"model": "default"}}),
        errors=(404, 409, 503),
    )
    async def ollama_show(self, exchange: Exchange) -> None:
        from queen_rbee.api.ollama.request import ShowRequest, parse

        request = parse(ShowRequest, await exchange.body(shape=NAME_SHAPE))
        name, _target = find_model(request.model, self._catalog, self._registry)
        found = find_listing(name, self._catalog, self._registry.replicas, self._registry.synced)
        await _send(exchange, shown(found, _having(found, self._registry.pools())))

    @gate_route(
        "GET",
        "/api/version",
        "Get the release of Ollama whose API this is",
        {200: json_reply("The version.", schema("OllamaVersion"))},
    )
    async def ollama_version(self, exchange: Exchange) -> None:
        await exchange.body()
        await exchange.send_json(200, {"version": OLLAMA_VERSION})


def _having(found: ModelListing, pools: list[PoolStatus]) -> list[PoolStatus]:
    return [pool for pool in pools if pool.pool_id in found.pools]


async def _send(exchange: Exchange, body: BaseModel) -> None:
    await exchange.send(200, body.model_dump_json().encode(), [("content-type", JSON)])

"""GET /v1/models: every name that `model` can have, as OpenAI's clients list them."""

from quart import Response
from quart_trio import QuartTrio

from llama_orch.contracts.openai import ModelEntries, ModelEntry
from llama_orch.http.exchange import Exchange, HotRoutes
from queen_rbee.naming import Models, Offer, offer, offers
from queen_rbee.registry import Registry

JSON = "application/json"


def add_model_list(routes: HotRoutes, registry: Registry, catalog: Models) -> None:
    """Add the list, which programs ask for on the connection that they chat on next: so it must be a hot path too."""

    async def models(exchange: Exchange) -> None:
        await exchange.body()
        found = offers(catalog, registry.candidates())
        body = ModelEntries(data=[_entry(item) for item in found]).model_dump_json().encode()
        await exchange.send(200, body, [("content-type", JSON)])

    routes.add("GET", "/v1/models", models)


def add_models(app: QuartTrio, registry: Registry, catalog: Models) -> None:
    """Add the way to one model by its name, which may have slashes."""

    @app.get("/v1/models/<path:name>")
    async def named_model(name: str) -> Response:
        found = _entry(offer(name, catalog, registry.candidates(), registry.synced))
        return Response(found.model_dump_json(), content_type=JSON)


def _entry(item: Offer) -> ModelEntry:
    return ModelEntry(
        id=item.name, created=item.created or 0, ready=item.ready, pools=list(item.pools), ctx_max=item.ctx_max
    )

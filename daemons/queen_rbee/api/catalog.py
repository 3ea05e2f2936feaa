"""The model catalog: models added, looked at, retired, checked and deleted by clients."""

from collections.abc import Callable, Sequence

from quart import Response
from quart_trio import QuartTrio

from llama_orch.contracts.catalog import CatalogList, CatalogModel, ModelStateChange, NewModel, NodeModels
from llama_orch.http.posted import body_of
from queen_rbee.api.views import answer
from queen_rbee.availability import availability
from queen_rbee.catalog import Catalog
from queen_rbee.refusals import unknown


def add_catalog(app: QuartTrio, catalog: Catalog, nodes: Callable[[], Sequence[NodeModels]]) -> None:
    """Add the routes to `app`; `nodes` tells what each node has now."""

    @app.post("/v2/catalog/models")
    async def add_model() -> Response:
        model, new = await catalog.add(await body_of(NewModel))
        return answer(model, 201 if new else 200)

    @app.get("/v2/catalog/models")
    async def models() -> Response:
        known = catalog.models()
        return answer(CatalogList(models=known, count=len(known)))

    @app.get("/v2/catalog/models/<model_id>")
    async def model(model_id: str) -> Response:
        return answer(_known(catalog, model_id))

    @app.delete("/v2/catalog/models/<model_id>")
    async def delete_model(model_id: str) -> Response:
        if not await catalog.remove(model_id):
            raise _unknown(model_id)
        return Response("", status=204)  # without a body, Quart looks for an asyncio loop

    @app.post("/v2/catalog/models/<model_id>/state")
    async def change_state(model_id: str) -> Response:
        change = await body_of(ModelStateChange)
        return answer(await catalog.set_state(_known(catalog, model_id), change.state), 202)

    @app.post("/v2/catalog/models/<model_id>/verify")
    async def verify(model_id: str) -> Response:
        return answer(await catalog.verify(_known(catalog, model_id)), 202)

    @app.get("/v2/catalog/availability")
    async def where() -> Response:
        return answer(availability(nodes()))


def _known(catalog: Catalog, model_id: str) -> CatalogModel:
    found = catalog.model(model_id)
    if found is None:
        raise _unknown(model_id)
    return found


def _unknown(model_id: str) -> Exception:
    return unknown("model", model_id, "See GET /v2/catalog/models for those of the catalog.")

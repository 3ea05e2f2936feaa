"""The model catalog: models added, looked at, retired, checked and deleted by clients."""

from collections.abc import Callable, Sequence

from quart import Response, request
from quart_trio import QuartTrio

from llama_orch.contracts.catalog import CatalogList, CatalogModel, ModelStateChange, NewModel, NodeModels
from llama_orch.contracts.errors import not_found
from llama_orch.http.server.peers import is_local_operator
from llama_orch.http.server.posted import body_of
from queen_rbee.api.views import answer
from queen_rbee.catalog.availability import availability
from queen_rbee.catalog.catalog import Catalog


def add_catalog(app: QuartTrio, catalog: Catalog, nodes: Callable[[], Sequence[NodeModels]]) -> None:
    """Add the routes to `app`; `nodes` tells what each node has now."""

    @app.post("/v2/catalog/models")
    async def add_model() -> Response:
        model, new = await catalog.add(await body_of(NewModel))
        return answer(_shown(model), 201 if new else 200)

    @app.get("/v2/catalog/models")
    async def models() -> Response:
        known = [_shown(model) for model in catalog.models()]
        return answer(CatalogList(models=known, count=len(known)))

    @app.get("/v2/catalog/models/<model_id>")
    async def model(model_id: str) -> Response:
        return answer(_shown(_known(catalog, model_id)))

    @app.delete("/v2/catalog/models/<model_id>")
    async def delete_model(model_id: str) -> Response:
        if not await catalog.remove(model_id):
            raise _unknown(model_id)
        return Response("", status=204)  # without a body, Quart looks for an asyncio loop

    @app.post("/v2/catalog/models/<model_id>/state")
    async def change_state(model_id: str) -> Response:
        change = await body_of(ModelStateChange)
        return answer(_shown(await catalog.set_state(_known(catalog, model_id), change.state)), 202)

    @app.post("/v2/catalog/models/<model_id>/verify")
    async def verify(model_id: str) -> Response:
        return answer(_shown(await catalog.verify(_known(catalog, model_id))), 202)

    @app.get("/v2/catalog/availability")
    async def where() -> Response:
        return answer(availability(nodes()))


def _shown(model: CatalogModel) -> CatalogModel:
    """`model` for the sender of the current request: the digest of a file that is not what the catalog wants is told to
    local operators only."""
    found = model.verification
    headers = {name.lower(): value for name, value in request.headers.items()}
    if found.actual in (None, model.digest) or is_local_operator(request.scope.get("client"), headers):
        return model
    return model.model_copy(update={"verification": found.model_copy(update={"actual": None})})


def _known(catalog: Catalog, model_id: str) -> CatalogModel:
    found = catalog.model(model_id)
    if found is None:
        raise _unknown(model_id)
    return found


def _unknown(model_id: str) -> Exception:
    return not_found("model", model_id, "See GET /v2/catalog/models for those of the catalog.")

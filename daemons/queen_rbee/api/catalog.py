"""Routes of the model catalog."""

from collections.abc import Callable, Sequence

from quart import Response, request

from llama_orch.contracts.catalog import Availability, CatalogList, CatalogModel, ModelStateChange, NewModel, NodeModels
from llama_orch.contracts.errors import ApiError, not_found
from llama_orch.http.server.mounting import json_response
from llama_orch.http.server.peers import is_local_operator
from llama_orch.http.server.routes import Reply, RequestBody, json_reply, route
from queen_rbee.catalog.availability import availability
from queen_rbee.catalog.catalog import Catalog

NEW_MODEL = RequestBody(
    NewModel, {"priced": {"id": "chat", "model_ref": "file:/srv/models/chat.gguf", "cost_per_1k_tokens": 0.02}}
)
STATE_CHANGE = RequestBody(ModelStateChange, {"retired": {"state": "Retired"}})


class CatalogRoutes:
    """`nodes` returns the models that each node has now."""

    def __init__(self, catalog: Catalog, nodes: Callable[[], Sequence[NodeModels]]) -> None:
        self._catalog = catalog
        self._nodes = nodes

    @route(
        "POST",
        "/v2/catalog/models",
        "Add a model",
        {
            200: json_reply("The same model was already in the catalog.", CatalogModel, model_id="/id"),
            201: json_reply(
                "The model is added. Its digest, if given, is being verified.", CatalogModel, model_id="/id"
            ),
        },
        body=NEW_MODEL,
        errors=(409, 503),
    )
    async def add_model(self, new: NewModel) -> Response:
        model, is_new = await self._catalog.add(new)
        return json_response(_visible(model), 201 if is_new else 200)

    @route(
        "GET",
        "/v2/catalog/models",
        "List models, ordered by id",
        {200: json_reply("The models.", CatalogList, model_id="/models/0/id")},
    )
    async def list_models(self) -> CatalogList:
        models = [_visible(model) for model in self._catalog.models()]
        return CatalogList(models=models, count=len(models))

    @route("GET", "/v2/catalog/models/{model_id}", "Get a model", {200: json_reply("The model.", CatalogModel)})
    async def get_model(self, model_id: str) -> CatalogModel:
        return _visible(self._known(model_id))

    @route(
        "DELETE",
        "/v2/catalog/models/{model_id}",
        "Delete a model from the catalog; its file is kept",
        {204: Reply("The model is deleted.")},
        errors=(503,),
    )
    async def delete_model(self, model_id: str) -> None:
        if not await self._catalog.remove(model_id):
            raise _unknown(model_id)

    @route(
        "POST",
        "/v2/catalog/models/{model_id}/state",
        "Retire or reactivate a model",
        {202: json_reply("The model with its new state.", CatalogModel)},
        body=STATE_CHANGE,
        errors=(503,),
    )
    async def change_model_state(self, change: ModelStateChange, model_id: str) -> CatalogModel:
        return _visible(await self._catalog.set_state(self._known(model_id), change.state))

    @route(
        "POST",
        "/v2/catalog/models/{model_id}/verify",
        "Verify a model's digest",
        {202: json_reply("Verification has started. GET the model for the outcome.", CatalogModel)},
        errors=(503,),
    )
    async def verify_model(self, model_id: str) -> CatalogModel:
        return _visible(await self._catalog.verify(self._known(model_id)))

    @route(
        "GET",
        "/v2/catalog/availability",
        "List which nodes have which models",
        {200: json_reply("Nodes and their models.", Availability)},
    )
    async def get_availability(self) -> Availability:
        return availability(self._nodes())

    def _known(self, model_id: str) -> CatalogModel:
        model = self._catalog.model(model_id)
        if model is None:
            raise _unknown(model_id)
        return model


def _visible(model: CatalogModel) -> CatalogModel:
    """Return `model` as the sender of the current request may see it.

    The digest of a file that does not match is for local operators only.
    """
    verification = model.verification
    headers = {name.lower(): value for name, value in request.headers.items()}
    if verification.actual in (None, model.digest) or is_local_operator(request.scope.get("client"), headers):
        return model
    return model.model_copy(update={"verification": verification.model_copy(update={"actual": None})})


def _unknown(model_id: str) -> ApiError:
    return not_found("model", model_id, "GET /v2/catalog/models lists the models of the catalog.")

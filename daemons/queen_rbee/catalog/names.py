"""What a client's name for a model leads to: an entry of the catalog, a model_ref, or a refusal in words. Pure."""

from collections.abc import Mapping, Sequence

from llama_orch.contracts.catalog import CatalogModel, ModelState, VerificationState
from llama_orch.contracts.errors import ApiError
from llama_orch.engines.wire.model_names import model_key
from llama_orch.http.server.bodies import invalid

Known = Mapping[str, CatalogModel]
"""The models by their ids."""
ByRef = Mapping[str, frozenset[str]]
"""The ids of the models that pools serve by one name, as `model_key` has it."""


def by_ref(models: Known) -> dict[str, frozenset[str]]:
    """The second index of `models`."""
    found: dict[str, set[str]] = {}
    for model in models.values():
        found.setdefault(model_key(model.model_ref), set()).add(model.id)
    return {name: frozenset(ids) for name, ids in found.items()}


def resolved(name: str, models: Known, refs: ByRef) -> CatalogModel | None:
    """The model with the id `name`; else one that pools serve by that name, if possible one that may be served."""
    if found := models.get(name):
        return found
    known = [models[model_id] for model_id in sorted(refs.get(model_key(name), ()))]
    return next((model for model in known if why_not(model) is None), known[0] if known else None)


def model_ref_for(name: str, models: Known, refs: ByRef) -> str:
    """What to look for among pools; a name that the catalog does not know stays as it is.

    Raises ApiError 404 for a retired model, 409 for one that is not what its digest says.
    """
    model = resolved(name, models, refs)
    if model is None:
        return name
    if refused := why_not(model):
        raise refused
    return model.model_ref if model.id == name else name


def why_not(model: CatalogModel) -> ApiError | None:
    """Why tasks may not ask for `model`, or None."""
    if model.state is ModelState.RETIRED:
        body = invalid([("model_ref", f"the model {model.id} is retired")])
        hint = f"See GET /v2/catalog/models for others. POST /v2/catalog/models/{model.id}/state brings it back."
        return ApiError(404, body.model_copy(update={"hint": hint}))
    if withheld(model):
        body = invalid([("model_ref", f"the model {model.id} is withheld: {model.verification.reason}")])
        hint = f"Mend the file or the digest, then POST /v2/catalog/models/{model.id}/verify."
        return ApiError(409, body.model_copy(update={"hint": hint}))
    return None


def withheld(model: CatalogModel) -> bool:
    """Whether it must not be served, since it is not what its digest says; a new check alone changes nothing."""
    found = model.verification
    differs = found.actual not in (None, model.digest)
    return found.state is VerificationState.MISMATCH or (found.state is VerificationState.PENDING and differs)


def withheld_names(models: Known, refs: ByRef) -> frozenset[str]:
    """The names in `refs` that no pool may be asked for: one model of the name is not what its digest says, and none
    has been found to be what its own says."""
    return frozenset(name for name, ids in refs.items() if _refused([models[model_id] for model_id in ids]))


def _refused(models: Sequence[CatalogModel]) -> bool:
    verified = any(model.verification.state is VerificationState.VERIFIED for model in models)
    return not verified and any(map(withheld, models))

"""Find catalog models by the names that clients use, and decide which names must not be served. Pure."""

from collections.abc import Mapping, Sequence

from llama_orch.contracts.catalog import CatalogModel, ModelState, VerificationState
from llama_orch.contracts.errors import ApiError
from llama_orch.engines.wire.model_names import model_key
from llama_orch.http.server.bodies import invalid


class NameIndex:
    """An index of models by the names under which pools serve them.

    `models` are the models by id. Build a new index when they change.
    """

    def __init__(self, models: Mapping[str, CatalogModel]) -> None:
        self._models = models
        self._ids_by_key: dict[str, set[str]] = {}
        for model in models.values():
            self._ids_by_key.setdefault(model_key(model.model_ref), set()).add(model.id)

    def find(self, name: str) -> CatalogModel | None:
        """Return the model with the id `name`, else one that pools serve under that name, preferably one that may be
        served."""
        if found := self._models.get(name):
            return found
        candidates = [self._models[model_id] for model_id in sorted(self._ids_by_key.get(model_key(name), ()))]
        return next((model for model in candidates if refusal(model) is None), candidates[0] if candidates else None)

    def model_ref_for(self, name: str) -> str:
        """Return the model name to look for among pools; a name that the catalog does not know stays as it is.

        Raises ApiError 404 for a retired model, 409 for one whose digest does not match.
        """
        model = self.find(name)
        if model is None:
            return name
        if error := refusal(model):
            raise error
        return model.model_ref if model.id == name else name

    def withheld_keys(self) -> frozenset[str]:
        """Return the `model_key` of all models that no pool may be asked for.

        These are names of which one model's digest does not match and no other model has been verified.
        """
        return frozenset(
            key for key, ids in self._ids_by_key.items() if _withhold_all([self._models[model_id] for model_id in ids])
        )


def refusal(model: CatalogModel) -> ApiError | None:
    """Return the error for a task that requests `model`, None if it may be served."""
    if model.state is ModelState.RETIRED:
        body = invalid([("model_ref", f"the model {model.id} is retired")])
        hint = f"See GET /v2/catalog/models for others. POST /v2/catalog/models/{model.id}/state activates it again."
        return ApiError(404, body.model_copy(update={"hint": hint}))
    if is_withheld(model):
        body = invalid([("model_ref", f"the model {model.id} is withheld: {model.verification.reason}")])
        hint = f"Correct the file or the digest, then POST /v2/catalog/models/{model.id}/verify."
        return ApiError(409, body.model_copy(update={"hint": hint}))
    return None


def is_withheld(model: CatalogModel) -> bool:
    """Return whether the digest does not match. A model stays withheld while it is checked again."""
    verification = model.verification
    differs = verification.actual not in (None, model.digest)
    pending = verification.state is VerificationState.PENDING
    return verification.state is VerificationState.MISMATCH or (pending and differs)


def _withhold_all(models: Sequence[CatalogModel]) -> bool:
    verified = any(model.verification.state is VerificationState.VERIFIED for model in models)
    return not verified and any(map(is_withheld, models))

"""Resolve the model names of clients: a catalog id, a pool id, or a model that pools serve. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llama_orch.contracts.catalog import CatalogModel, ModelState
from llama_orch.contracts.engines import Workload
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.contracts.tasks import PlacementWish, TaskRequest
from llama_orch.engines.wire.model_names import public_name
from llama_orch.engines.wire.passage import Endpoint, workloads_of
from queen_rbee.keys.keyring import may_use_model
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.replica_index import ReplicaIndex

ANY_MODEL = ("", "default")
"""Names that select any model, unless a model or a pool has that name."""
NAMES_LIMIT = 20
"""The most names in one message."""
SYNC_RETRY_MS = 1000


class ModelCatalog(Protocol):
    """The part of the catalog that name resolution needs."""

    def models(self) -> Sequence[CatalogModel]: ...

    def model(self, model_id: str) -> CatalogModel | None: ...

    def model_ref_for(self, name: str) -> str:
        """Return the name under which pools serve the model: `name` itself if the catalog does not know it.

        Raises ApiError if the model must not be served.
        """
        ...


@dataclass(frozen=True)
class ModelTarget:
    """What a model name selects: a model, a pool, or neither, which means any pool."""

    model_ref: str | None = None
    pool_id: str | None = None


@dataclass(frozen=True)
class ModelListing:
    """A name that clients can request. `created` is in seconds since the epoch, None if unknown."""

    name: str
    created: int | None
    pools: tuple[str, ...]
    ready: bool
    ctx_max: int | None
    workloads: tuple[Workload, ...] = ()


def find_target(name: str | None, catalog: ModelCatalog, replicas: ReplicaIndex, synced: bool) -> ModelTarget:
    """Resolve `name`. Raises ApiError 404 if nothing has this name, and the catalog's refusal of a model.

    Raises ApiError 503 for an unknown name while not all sources have reported (not `synced`).
    """
    if name and catalog.model(name):
        return ModelTarget(model_ref=catalog.model_ref_for(name))
    if name and replicas.of_pool(name):
        return ModelTarget(pool_id=name)
    if name and replicas.serving(name):
        return ModelTarget(model_ref=catalog.model_ref_for(name))
    if name is None or name in ANY_MODEL:
        return ModelTarget()
    if not replicas:
        return ModelTarget(model_ref=catalog.model_ref_for(name))  # admission refuses it: no pool is known
    if not synced:
        raise _not_synced(name)
    raise _unknown(name, [each.name for each in list_models(catalog, replicas) if may_use_model(each.name)])


def resolve_request(request: TaskRequest, catalog: ModelCatalog, replicas: ReplicaIndex) -> TaskRequest:
    """Return `request` with the model name that pools use. Raises ApiError if the catalog withholds the model.

    The id of a pool, which /v1/models lists too, pins the task to that pool, unless a model has the same name.
    """
    name, placement = request.model_ref, request.placement or PlacementWish()
    if name is None:
        return request
    if catalog.model(name) is None and replicas.of_pool(name) and not replicas.serving(name):
        if placement.mode != "pin" or placement.pin_pool_id == name:
            pinned = placement.model_copy(update={"mode": "pin", "pin_pool_id": name})
            return request.model_copy(update={"model_ref": None, "placement": pinned})
        return request
    found = catalog.model_ref_for(name)
    return request if found == name else request.model_copy(update={"model_ref": found})


def list_models(catalog: ModelCatalog, replicas: ReplicaIndex) -> list[ModelListing]:
    """Return each name that clients can request once: the catalog's active models, and the pools that
    are ready or can be loaded, with their models."""
    active = [model for model in catalog.models() if model.state is ModelState.ACTIVE]
    found = {model.id: _listing(model.id, replicas.serving(model.model_ref), model) for model in active}
    ready = [candidate for candidate in replicas.all() if candidate.available]
    for pool_id in dict.fromkeys(candidate.pool_id for candidate in ready):
        if pool_id not in found:
            found[pool_id] = _listing(pool_id, [each for each in replicas.of_pool(pool_id) if each.available])
    for model in dict.fromkeys(model for candidate in ready for model in candidate.models):
        if (name := public_name(model)) not in found:
            found[name] = _listing(name, replicas.serving(model))
    return list(found.values())


def find_listing(name: str, catalog: ModelCatalog, replicas: ReplicaIndex, synced: bool) -> ModelListing:
    """Return the listing of `name`. Raises ApiError as `find_target` does."""
    target = find_target(name, catalog, replicas, synced)
    serving = replicas.serving(target.model_ref) if target.model_ref else replicas.of_pool(target.pool_id or "")
    return _listing(name, serving, catalog.model(name))


def _listing(name: str, serving: Sequence[Candidate], model: CatalogModel | None = None) -> ModelListing:
    sizes = [candidate.ctx_max for candidate in serving if candidate.ctx_max is not None]
    return ModelListing(
        name,
        int(model.created_at.timestamp()) if model else None,
        tuple(sorted({candidate.pool_id for candidate in serving})),
        any(candidate.ready and not candidate.draining for candidate in serving),
        max(sizes, default=None),
        workloads_of(frozenset[Endpoint]().union(*(candidate.endpoints or () for candidate in serving))),
    )


def _unknown(name: str, known: Sequence[str]) -> ApiError:
    listed = ", ".join(known[:NAMES_LIMIT])
    listed += f" and {len(known) - NAMES_LIMIT} more" if len(known) > NAMES_LIMIT else ""
    message = f"The model `{name[:128]}` does not exist. Available: {listed or 'none'}"
    fields = [FieldProblem(field="model", problem="does not exist")]
    return ApiError(
        404, ErrorBody(code=ErrorCode.NOT_FOUND, message=message, fields=fields, hint="See GET /v1/models.")
    )


def _not_synced(name: str) -> ApiError:
    message = f"not all pools are known yet, so it is unknown whether one serves `{name[:128]}`"
    body = ErrorBody(code=ErrorCode.POOL_UNREADY, message=message, retriable=True, retry_after_ms=SYNC_RETRY_MS)
    headers = (("retry-after", str(SYNC_RETRY_MS // 1000)), ("x-backoff-ms", str(SYNC_RETRY_MS)))
    return ApiError(503, body, headers)

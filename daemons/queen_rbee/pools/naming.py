"""What a client means by a model's name: an id of the catalog, a pool, or a model that pools serve. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from llama_orch.contracts.catalog import CatalogModel, ModelState
from llama_orch.contracts.engines import Workload
from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode, FieldProblem
from llama_orch.contracts.tasks import PlacementWish, TaskRequest
from llama_orch.engines.wire.model_names import public_name
from llama_orch.engines.wire.passage import Endpoint, workloads_of
from queen_rbee.pools.candidates import Candidate
from queen_rbee.pools.directory import Directory

ANY = ("", "default")
"""Names of whatever there is, where nothing is called so."""
SHOWN = 20
SYNC_MS = 1000


class Models(Protocol):
    """What is needed of the catalog."""

    def models(self) -> Sequence[CatalogModel]:
        """All models."""
        ...

    def model(self, model_id: str) -> CatalogModel | None:
        """The model with that id."""
        ...

    def model_ref_for(self, name: str) -> str:
        """What pools serve it as, `name` itself where the catalog does not know it. Raises ApiError: not served."""
        ...


@dataclass(frozen=True)
class Named:
    """What a task must ask for; nothing of it: any pool will do."""

    model_ref: str | None = None
    pool_id: str | None = None


@dataclass(frozen=True)
class Offer:
    """A name that can be asked for. `created` is in seconds since the epoch, None where nobody knows; `pools` serve it,
    in none of them it is `ready` unless one says so."""

    name: str
    created: int | None
    pools: tuple[str, ...]
    ready: bool
    ctx_max: int | None
    workloads: tuple[Workload, ...] = ()


def named(name: str | None, catalog: Models, replicas: Directory, synced: bool) -> Named:
    """What `name` stands for. Raises ApiError 404 where it stands for nothing, and what the catalog says against it.

    While pools are still being asked (not `synced`) an unknown name is answered by 503: the pool may be there.
    """
    if name and catalog.model(name):
        return Named(model_ref=catalog.model_ref_for(name))
    if name and replicas.of_pool(name):
        return Named(pool_id=name)
    if name and replicas.serving(name):
        return Named(model_ref=catalog.model_ref_for(name))
    if name is None or name in ANY:
        return Named()
    if not replicas:
        return Named(model_ref=catalog.model_ref_for(name))  # admission says that no pool is known
    if not synced:
        raise _asking(name)
    raise _unknown(name, [offer.name for offer in offers(catalog, replicas)])


def resolved(request: TaskRequest, catalog: Models, replicas: Directory) -> TaskRequest:
    """`request` with the model's name as pools have it. Raises ApiError for what the catalog withholds.

    The id of a pool, which /v1/models lists too, pins the task to that pool, unless it names a model as well.
    """
    name, wish = request.model_ref, request.placement or PlacementWish()
    if name is None:
        return request
    if catalog.model(name) is None and replicas.of_pool(name) and not replicas.serving(name):
        if wish.mode != "pin" or wish.pin_pool_id == name:
            pinned = wish.model_copy(update={"mode": "pin", "pin_pool_id": name})
            return request.model_copy(update={"model_ref": None, "placement": pinned})
        return request
    found = catalog.model_ref_for(name)
    return request if found == name else request.model_copy(update={"model_ref": found})


def offers(catalog: Models, replicas: Directory) -> list[Offer]:
    """All names that can be asked for, each once: the catalog's active ones, the pools, and what these serve."""
    active = [model for model in catalog.models() if model.state is ModelState.ACTIVE]
    found = {model.id: _offer(model.id, replicas.serving(model.model_ref), model) for model in active}
    ready = [candidate for candidate in replicas.all() if candidate.ready]
    for pool_id in dict.fromkeys(candidate.pool_id for candidate in ready):
        if pool_id not in found:
            found[pool_id] = _offer(pool_id, [mine for mine in replicas.of_pool(pool_id) if mine.ready])
    for model in dict.fromkeys(model for candidate in ready for model in candidate.models):
        if (name := public_name(model)) not in found:
            found[name] = _offer(name, replicas.serving(model))
    return list(found.values())


def offer(name: str, catalog: Models, replicas: Directory, synced: bool) -> Offer:
    """What is offered under `name`. Raises ApiError as `named` does."""
    meant = named(name, catalog, replicas, synced)
    serving = replicas.serving(meant.model_ref) if meant.model_ref else replicas.of_pool(meant.pool_id or "")
    return _offer(name, serving, catalog.model(name))


def _offer(name: str, serving: Sequence[Candidate], model: CatalogModel | None = None) -> Offer:
    sizes = [candidate.ctx_max for candidate in serving if candidate.ctx_max is not None]
    return Offer(
        name,
        int(model.created_at.timestamp()) if model else None,
        tuple(sorted({candidate.pool_id for candidate in serving})),
        any(candidate.ready and not candidate.draining for candidate in serving),
        max(sizes, default=None),
        workloads_of(frozenset[Endpoint]().union(*(candidate.endpoints or () for candidate in serving))),
    )


def _unknown(name: str, known: Sequence[str]) -> ApiError:
    shown = ", ".join(known[:SHOWN]) + (f" and {len(known) - SHOWN} more" if len(known) > SHOWN else "")
    message = f"The model `{name[:128]}` does not exist. There is: {shown or 'nothing yet'}"
    fields = [FieldProblem(field="model", problem="does not exist")]
    return ApiError(
        404, ErrorBody(code=ErrorCode.NOT_FOUND, message=message, fields=fields, hint="See GET /v1/models.")
    )


def _asking(name: str) -> ApiError:
    message = f"whether a pool serves `{name[:128]}` is being asked"
    body = ErrorBody(code=ErrorCode.POOL_UNREADY, message=message, retriable=True, retry_after_ms=SYNC_MS)
    return ApiError(503, body, (("retry-after", str(SYNC_MS // 1000)), ("x-backoff-ms", str(SYNC_MS))))

"""A replica as placement sees it, and what a task demands of one. Plain values."""

from dataclasses import dataclass, replace
from typing import TypeVar

from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.pools import CircuitState, PoolState, PoolStatus, ReplicaStatus
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.model_names import model_key, public_name
from llama_orch.engines.wire.passage import Endpoint, Passage

Reported = TypeVar("Reported", PoolStatus, PoolSnapshot)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One engine process of a pool, with the slots that are taken here and now."""

    pool_id: str
    replica_id: str
    url: str
    state: PoolState
    ready: bool
    draining: bool
    slots_total: int
    leased: int
    engine: str
    engine_version: str | None = None
    models: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    """Models that it has too, but that are not what the catalog says."""
    ctx_max: int | None = None
    device_mask: str | None = None
    vram_free_bytes: int = 0
    endpoints: frozenset[Endpoint] | None = None
    """What its kind of engine can be asked for; None where this release cannot speak to the engine at all."""
    node_id: str | None = None
    """The node whose relay leads to it; None where the queen speaks to the engine itself."""
    circuit: CircuitState = "closed"

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from all others."""
        return self.pool_id, self.replica_id

    @property
    def slots_free(self) -> int:
        """Slots that this queen has not leased."""
        return max(0, self.slots_total - self.leased)

    @property
    def open(self) -> bool:
        """Whether a task could start on it now."""
        return self.serves and self.leased < self.slots_total

    @property
    def serves(self) -> bool:
        """Whether tasks run on it at present; one more could start as soon as a slot is free."""
        return self.ready and not self.draining and self.circuit == "closed"

    @property
    def shape(self) -> tuple[object, ...]:
        """What decides which tasks it can take, and how many: all but what changes with each task and each look."""
        place = self.url, self.state, self.ready, self.draining, self.slots_total, self.circuit
        return place, self.engine_version, self.traits

    @property
    def traits(self) -> tuple[object, ...]:
        """What a demand is held against: it stays while the replica comes and goes, unlike the rest of its shape."""
        return self.device_mask, self.engine, self.models, self.withheld, self.ctx_max, self.endpoints

    def counted(self, leased: int, circuit: CircuitState) -> "Candidate":
        """As it is with so many slots leased."""
        same = self.leased == leased and self.circuit == circuit
        return self if same else replace(self, leased=leased, circuit=circuit)


@dataclass(frozen=True)
class Demand:
    """What a task demands of a replica; tasks with equal demands can run in the same places."""

    model_ref: str | None = None
    engine: str | None = None
    endpoint: Endpoint = "completion"
    ctx: int | None = None
    pin: str | None = None
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    device_mask: str | None = None
    fallback: bool = True


def demand_of(request: TaskRequest, passage: Passage | None = None) -> Demand:
    """The demand of `request`; the context it needs is the larger of `ctx` and `max_tokens`. The max_tokens of a /v1
    client is no demand: see `rooms.fitted`."""
    wish = request.placement
    sizes = [size for size in (request.ctx, None if passage else request.max_tokens) if size is not None]
    endpoint: Endpoint = passage.endpoint if passage else "completion"
    base = Demand(request.model_ref, request.engine, endpoint, max(sizes, default=None))
    if wish is None:
        return base
    return replace(
        base,
        pin=wish.pin_pool_id if wish.mode == "pin" else None,
        prefer=wish.prefer_pools if wish.mode == "prefer" else (),
        avoid=wish.avoid_pools,
        device_mask=wish.require_device_mask,
        fallback=wish.allow_fallback,
    )


def serves_model(candidate: Candidate, model_ref: str) -> bool:
    """Whether `model_ref` names a model of `candidate`: in full, by its file's name, or by that without its ending."""
    return served_name(candidate, model_ref) is not None


def served_name(candidate: Candidate, model_ref: str | None) -> str | None:
    """The name under which `candidate` serves `model_ref`, or the only model it has; None where that is not known."""
    if model_ref is None:
        return candidate.models[0] if len(candidate.models) == 1 else None
    wanted = model_key(model_ref)
    return next((model for model in candidate.models if model_ref == model or wanted == model_key(model)), None)


def public_pool(pool: Reported) -> Reported:
    """`pool` as clients see it: no paths in the names of its models."""
    if not any(public_name(model) != model for model in (*pool.models_available, *pool.model_digests)):
        return pool
    names = list(dict.fromkeys(map(public_name, pool.models_available)))
    digests = {public_name(model): digest for model, digest in pool.model_digests.items()}
    return pool.model_copy(update={"models_available": names, "model_digests": digests})


Key = tuple[str, str]


def absent(pool: PoolStatus) -> ReplicaStatus:
    """What stands for a pool that has no engine yet, or none left."""
    return ReplicaStatus(replica_id=pool.node_id or "none", url="", ready=False, slots_total=0, slots_free=0)


def candidate_of(
    pool: PoolStatus, replica: ReplicaStatus, refused: tuple[str, ...], endpoints: frozenset[Endpoint] | None
) -> Candidate:
    """`replica` of `pool`, without leases; `refused` are its models that are not what the catalog says."""
    return Candidate(
        pool_id=pool.pool_id,
        replica_id=replica.replica_id,
        node_id=pool.node_id,
        url=replica.url,
        state=pool.state,
        ready=replica.ready and pool.ready,
        draining=pool.draining,
        slots_total=replica.slots_total,
        leased=0,
        engine=pool.engine,
        engine_version=pool.engine_version,
        models=tuple(model for model in pool.models_available if model not in refused),
        withheld=refused,
        ctx_max=pool.ctx_max,
        device_mask=pool.device_mask,
        vram_free_bytes=pool.vram_free_bytes,
        endpoints=endpoints,
    )

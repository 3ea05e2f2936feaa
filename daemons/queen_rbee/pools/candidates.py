"""Replicas as placement sees them, and the demands of tasks. Plain values."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TypeVar

from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.pools import CircuitState, PoolState, PoolStatus, ReplicaStatus
from llama_orch.contracts.tasks import TaskRequest
from llama_orch.engines.wire.model_names import model_key, public_name
from llama_orch.engines.wire.passage import Endpoint, Passage

ReplicaKey = tuple[str, str]
"""The pool id and the replica id; unique among all replicas."""

LOADABLE = (PoolState.UNLOADED, PoolState.PROVISIONING, PoolState.STARTING)
"""The states in which the model of a pool can be loaded on demand, or is being loaded."""

Reported = TypeVar("Reported", PoolStatus, PoolSnapshot)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica (one engine process of a pool) with the number of its slots that this queen has leased.

    `withheld` are models it has but must not be asked for, because their digests do not match the catalog. `endpoints`
    is None if this release does not support the engine. `node_id` is the node that relays to it, None if the queen
    connects to the engine directly. `loadable`: its model is loaded on demand. `held`: it gets no new tasks, because
    its model is about to be unloaded.
    """

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
    ctx_max: int | None = None
    device_mask: str | None = None
    vram_free_bytes: int = 0
    endpoints: frozenset[Endpoint] | None = None
    node_id: str | None = None
    circuit: CircuitState = "closed"
    loadable: bool = False
    held: bool = False

    @property
    def key(self) -> ReplicaKey:
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
        """Whether it accepts tasks at present, given a free slot."""
        return self.ready and not (self.draining or self.held) and self.circuit == "closed"

    @property
    def coming_up(self) -> bool:
        """Whether its model is being loaded on demand."""
        return self.loadable and self.state in (PoolState.PROVISIONING, PoolState.STARTING) and not self.draining

    @property
    def available(self) -> bool:
        """Whether it serves tasks, or would once its node is awake and its model loaded."""
        return self.ready or self.asleep or (self.loadable and self.state in LOADABLE)

    @property
    def asleep(self) -> bool:
        """Whether its node sleeps, and can be woken for it."""
        return self.state is PoolState.ASLEEP and not self.draining

    @property
    def capacity(self) -> tuple[object, ...]:
        """Everything that decides which tasks it can take and how many, without the current leases and free memory."""
        availability = self.url, self.state, self.ready, self.draining, self.slots_total, self.circuit, self.held
        return availability, self.engine_version, self.traits

    @property
    def traits(self) -> tuple[object, ...]:
        """The fields that demands are matched against. They stay the same while the replica goes down and returns."""
        return self.device_mask, self.engine, self.models, self.withheld, self.ctx_max, self.endpoints

    def with_load(self, leased: int, circuit: CircuitState, *, held: bool = False) -> "Candidate":
        """Return the replica with this number of leased slots, this circuit state, and held or not."""
        unchanged = self.leased == leased and self.circuit == circuit and self.held == held
        return self if unchanged else replace(self, leased=leased, circuit=circuit, held=held)


@dataclass(frozen=True)
class Demand:
    """A task's requirements on a replica; tasks with equal demands can run on the same replicas.

    It is a key in many tables that each admission looks into, so its hash is computed once.
    """

    model_ref: str | None = None
    engine: str | None = None
    endpoint: Endpoint = "completion"
    ctx: int | None = None
    pin: str | None = None
    prefer: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    device_mask: str | None = None
    fallback: bool = True
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fields = self.model_ref, self.engine, self.endpoint, self.ctx, self.pin, self.prefer, self.avoid
        object.__setattr__(self, "_hash", hash((fields, self.device_mask, self.fallback)))

    def __hash__(self) -> int:
        return self._hash


@lru_cache(maxsize=256)
def _simple_demand(model_ref: str | None, engine: str | None, endpoint: Endpoint, ctx: int | None) -> Demand:
    """Return the same object for the same requirements, so that tables find it without comparing its fields."""
    return Demand(model_ref, engine, endpoint, ctx)


ANY = _simple_demand(None, None, "completion", None)
"""The demand of a completion without requirements."""


def demand_of(request: TaskRequest, passage: Passage | None = None) -> Demand:
    """Return the demand of `request`. The context it needs is the larger of `ctx` and `max_tokens`.

    The max_tokens of a /v1 client is not part of the demand, because it is reduced to fit: see `fit_to_context`.
    """
    placement = request.placement
    ctx = request.ctx
    if passage is None and request.max_tokens is not None:
        ctx = max(ctx or 0, request.max_tokens)
    demand = _simple_demand(request.model_ref, request.engine, passage.endpoint if passage else "completion", ctx)
    if placement is None:
        return demand
    return replace(
        demand,
        pin=placement.pin_pool_id if placement.mode == "pin" else None,
        prefer=placement.prefer_pools if placement.mode == "prefer" else (),
        avoid=placement.avoid_pools,
        device_mask=placement.require_device_mask,
        fallback=placement.allow_fallback,
    )


def serves_model(candidate: Candidate, model_ref: str) -> bool:
    """Return whether `model_ref` names a model of `candidate`: the full reference, or its file name with or without
    extension."""
    return served_name(candidate, model_ref) is not None


def served_name(candidate: Candidate, model_ref: str | None) -> str | None:
    """Return the name under which `candidate` serves `model_ref`, None if it does not.

    Without a `model_ref`, return the candidate's model if it has exactly one.
    """
    if model_ref is None:
        return candidate.models[0] if len(candidate.models) == 1 else None
    key = model_key(model_ref)
    return next((model for model in candidate.models if model_ref == model or key == model_key(model)), None)


def public_pool(pool: Reported) -> Reported:
    """Return `pool` as clients see it: without file paths, also in model names."""
    if (residency := pool.residency) and (model := residency.model):
        public = model.model_copy(update={"id": public_name(model.id), "path": public_name(model.id)})
        pool = pool.model_copy(update={"residency": residency.model_copy(update={"model": public})})
    if not any(public_name(model) != model for model in (*pool.models_available, *pool.model_digests)):
        return pool
    names = list(dict.fromkeys(map(public_name, pool.models_available)))
    digests = {public_name(model): digest for model, digest in pool.model_digests.items()}
    return pool.model_copy(update={"models_available": names, "model_digests": digests})


def placeholder_replica(pool: PoolStatus) -> ReplicaStatus:
    """Return a replica that represents a pool without engines, so that its state is known to placement."""
    return ReplicaStatus(replica_id=pool.node_id or "none", url="", ready=False, slots_total=0, slots_free=0)


def build_candidate(
    pool: PoolStatus, replica: ReplicaStatus, withheld: tuple[str, ...], endpoints: frozenset[Endpoint] | None
) -> Candidate:
    """Return `replica` of `pool` as a candidate without leases."""
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
        models=tuple(model for model in pool.models_available if model not in withheld),
        withheld=withheld,
        ctx_max=pool.ctx_max,
        device_mask=pool.device_mask,
        vram_free_bytes=pool.vram_free_bytes,
        endpoints=endpoints,
        loadable=pool.residency is not None,
    )

"""Placement: which replicas can take a task, which one does, and why a task cannot be placed.

All functions are pure. A filter on the task's demand comes first, then a strategy chooses among the replicas with a
free slot. `refusal` distinguishes a demand that can never be met from one that only has to wait.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from llama_orch.contracts.engines import Workload
from llama_orch.contracts.errors import ErrorCode, FieldProblem, Reason
from llama_orch.contracts.pools import PoolState
from llama_orch.engines.wire.model_names import public_name
from llama_orch.engines.wire.passage import WORKLOADS, workloads_of
from queen_rbee.pools.candidates import Candidate, Demand, ReplicaKey, serves_model
from queen_rbee.pools.strategies import STRATEGIES, StrategyName

FILTER_LIMIT = 64
"""Strategies get only the open candidates if there are at most this many, otherwise all of them.

With thousands of replicas the filter would take most of a placement's time. The price is that a replica that follows a
busy one gets slightly more tasks.
"""
NAMES_LIMIT = 10
"""The most model names in one hint."""
CONTEXT_HINT = "Ask for less, or give a pool more ctx: see orchctl pools."
WORKLOAD_HINTS: Mapping[Workload, str] = {
    "completion": "Start its pool without --embeddings and --reranking, or declare its workloads.",
    "embedding": 'Set workloads = ["embedding"] for a pool in pools.toml (llama-server\'s --embeddings).',
    "rerank": 'Set workloads = ["rerank"] for a pool in pools.toml (llama-server\'s --reranking).',
}
"""How to configure a pool for a workload: see llama-orch-pools(5)."""


@dataclass(frozen=True)
class PlacementRefusal:
    """Why a task is refused. `max_ctx` is the largest context available, set if only the context is too small."""

    code: ErrorCode
    message: str
    hint: str
    retriable: bool
    reason: Reason | None = None
    fields: tuple[FieldProblem, ...] = ()
    max_ctx: int | None = None


def unmet(candidate: Candidate, demand: Demand) -> str | None:
    """Return the first requirement of `demand` that `candidate` does not meet, or None."""
    return _unmet_endpoint(candidate, demand) or _unmet_placement(candidate, demand) or _unmet_model(candidate, demand)


def _unmet_endpoint(candidate: Candidate, demand: Demand) -> str | None:
    if candidate.endpoints is None:
        return f"engine {candidate.engine} is not supported by this release"
    if demand.endpoint not in candidate.endpoints:
        return f"the engine does not serve {WORKLOADS[demand.endpoint]} tasks"
    return None


def _unmet_placement(candidate: Candidate, demand: Demand) -> str | None:
    if demand.pin and candidate.pool_id != demand.pin:
        return f"the task is pinned to pool {demand.pin}"
    if candidate.pool_id in demand.avoid:
        return f"the task avoids pool {candidate.pool_id}"
    if demand.device_mask and candidate.device_mask != demand.device_mask:
        return f"the devices are {candidate.device_mask or 'unknown'}"
    return None


def _unmet_model(candidate: Candidate, demand: Demand) -> str | None:
    if candidate.withheld and not candidate.models:
        return f"the digest of {_public_names(candidate.withheld)} does not match the catalog"
    if demand.engine and candidate.engine != demand.engine:
        return f"the engine is {candidate.engine}"
    if demand.model_ref and not serves_model(candidate, demand.model_ref):
        return f"the models are {_public_names(candidate.models) or 'unknown'}"
    if demand.ctx and candidate.ctx_max and demand.ctx > candidate.ctx_max:
        return f"the context of a slot is {candidate.ctx_max} tokens"
    return None


def _public_names(models: Iterable[str]) -> str:
    return ", ".join(map(public_name, models))


def meets(candidate: Candidate, demand: Demand) -> bool:
    """Return whether `candidate` can take a task with this demand, busy or not.

    Without `demand.fallback`, only preferred pools qualify.
    """
    if demand.prefer and not demand.fallback and candidate.pool_id not in demand.prefer:
        return False
    return unmet(candidate, demand) is None


def suitable(candidates: Iterable[Candidate], demand: Demand) -> list[Candidate]:
    return [candidate for candidate in candidates if meets(candidate, demand)]


def pick(
    candidates: Sequence[Candidate],
    demand: Demand,
    strategy: StrategyName,
    turn: int,
    affinity: ReplicaKey | None = None,
) -> Candidate | None:
    """Choose the replica that takes the task; None while all of them are busy.

    `candidates` meet `demand` and are sorted by key. `turn` counts placements. `affinity` is the replica that holds the
    KV cache of the task's session: it wins if it is open, but the task does not wait for it.
    """
    cached = find(candidates, affinity) if affinity else None
    if cached and cached.open and (not demand.prefer or cached.pool_id in demand.prefer):
        return cached
    if demand.prefer or len(candidates) <= FILTER_LIMIT:
        candidates = [candidate for candidate in candidates if candidate.open]
    if demand.prefer:
        candidates = [candidate for candidate in candidates if candidate.pool_id in demand.prefer] or candidates
    return STRATEGIES[strategy].choose(candidates, turn) if candidates else None


def find(candidates: Sequence[Candidate], key: ReplicaKey) -> Candidate | None:
    """Return the candidate with this key; `candidates` are sorted by key."""
    index = bisect_left(candidates, key, key=lambda candidate: candidate.key)
    return candidates[index] if index < len(candidates) and candidates[index].key == key else None


def refusal(candidates: Sequence[Candidate], demand: Demand) -> PlacementRefusal | None:
    """Return why a task must be refused instead of waiting; None if a known replica may serve it sooner or later."""
    matching = suitable(candidates, demand)
    if any(candidate.state is not PoolState.FAILED for candidate in matching):
        return None
    if matching or not candidates:
        return _not_ready(matching)
    if demand.pin and all(candidate.pool_id != demand.pin for candidate in candidates):
        known = ", ".join(sorted({candidate.pool_id for candidate in candidates}))
        message = f"pool {demand.pin} does not exist"
        return PlacementRefusal(ErrorCode.POOL_UNAVAILABLE, message, f"Known pools: {known}.", False)
    if other_workload := [
        c
        for c in candidates
        if c.endpoints is not None and not (_unmet_placement(c, demand) or _unmet_model(c, demand))
    ]:
        return _wrong_workload(other_workload, candidates, demand)
    # with a smaller context it could be placed
    if sizes := [found.ctx_max for found in suitable(candidates, replace(demand, ctx=None)) if found.ctx_max]:
        return _context_too_large(demand, max(sizes))
    reasons = "; ".join(f"{candidate.pool_id}: {unmet(candidate, demand)}" for candidate in candidates[:5])
    message = f"no pool can serve this task: {reasons}"
    return PlacementRefusal(ErrorCode.INVALID_PARAMS, message, "See orchctl pools.", False)


def _context_too_large(demand: Demand, max_ctx: int) -> PlacementRefusal:
    message = f"{demand.ctx} tokens of context requested, the largest available is {max_ctx}"
    return PlacementRefusal(
        ErrorCode.INVALID_PARAMS, message, CONTEXT_HINT, False, "context_length_exceeded", max_ctx=max_ctx
    )


def _wrong_workload(
    other_workload: Sequence[Candidate], candidates: Sequence[Candidate], demand: Demand
) -> PlacementRefusal:
    """`other_workload` are the replicas that meet all of `demand` except its workload."""
    workload = WORKLOADS[demand.endpoint]
    able = [candidate for candidate in candidates if demand.endpoint in (candidate.endpoints or ())]
    names = sorted({public_name(model) for candidate in able for model in candidate.models or (candidate.pool_id,)})
    listed = ", ".join(names[:NAMES_LIMIT]) + (", …" if len(names) > NAMES_LIMIT else "")
    hint = f"Models that do: {listed}." if names else f"No pool here does. {WORKLOAD_HINTS[workload]}"
    if demand.model_ref is None and demand.pin is None:
        return PlacementRefusal(ErrorCode.INVALID_PARAMS, f"no matching pool serves {workload} tasks", hint, False)
    subject = f"the model {demand.model_ref}" if demand.model_ref else f"pool {demand.pin}"
    served = sorted({each for candidate in other_workload for each in workloads_of(candidate.endpoints or frozenset())})
    message = f"{subject} does not serve {workload} tasks, only {' and '.join(served) or 'none'}"
    problem = FieldProblem(field="model_ref", problem=f"does not serve {workload} tasks")
    return PlacementRefusal(ErrorCode.INVALID_PARAMS, message, hint, False, fields=(problem,))


def _not_ready(failed: Sequence[Candidate]) -> PlacementRefusal:
    pool_ids = ", ".join(sorted({candidate.pool_id for candidate in failed}))
    message = f"all pools that could serve this task have failed: {pool_ids}" if pool_ids else "no pool is known yet"
    hint = "See orchctl pools, and journalctl -u engine-provisioner."
    return PlacementRefusal(ErrorCode.POOL_UNREADY, message, hint, True)

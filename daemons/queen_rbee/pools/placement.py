"""Placement as pure functions: which replicas can take a task, which of them does, and why none can.

A filter on what the task demands, then a strategy among those that have a free slot. A pin that cannot be met, and a
demand that nothing known here could ever meet, are told apart from having to wait.
"""

import random
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from llama_orch.contracts.engines import Workload
from llama_orch.contracts.errors import ErrorCode, FieldProblem, Reason
from llama_orch.contracts.pools import PoolState
from llama_orch.engines.wire.model_names import public_name
from llama_orch.engines.wire.passage import WORKLOADS, workloads_of
from queen_rbee.pools.candidates import Candidate, Demand, serves_model

FEW = 64
NAMES_SHOWN = 10
ASK_LESS = "Ask for less, or give a pool more ctx: see orchctl pools."
START: Mapping[Workload, str] = {
    "completion": "Its pool must be started without --embeddings and --reranking, or declare workloads.",
    "embedding": 'Give a pool workloads = ["embedding"] in pools.toml (llama-server\'s --embeddings).',
    "rerank": 'Give a pool workloads = ["rerank"] in pools.toml (llama-server\'s --reranking).',
}
"""How a pool comes to do it: see llama-orch-pools(5)."""

Strategy = Literal["round-robin", "least-loaded", "random"]


@dataclass(frozen=True)
class Refusal:
    """Why a task cannot be placed, now or ever."""

    code: ErrorCode
    message: str
    hint: str
    retriable: bool
    reason: Reason | None = None
    fields: tuple[FieldProblem, ...] = ()
    room: int | None = None
    """The largest context there is, where only the context is too small."""


def unmet(candidate: Candidate, demand: Demand) -> str | None:
    """What `demand` asks for and `candidate` does not have, or None."""
    return _unspoken(candidate, demand) or _misplaced(candidate, demand) or _lacking(candidate, demand)


def _unspoken(candidate: Candidate, demand: Demand) -> str | None:
    if candidate.endpoints is None:
        return f"engine {candidate.engine} is not spoken by this release"
    if demand.endpoint not in candidate.endpoints:
        return f"its engine does not serve {WORKLOADS[demand.endpoint]} tasks"
    return None


def _misplaced(candidate: Candidate, demand: Demand) -> str | None:
    if demand.pin and candidate.pool_id != demand.pin:
        return f"the task is pinned to pool {demand.pin}"
    if candidate.pool_id in demand.avoid:
        return f"the task avoids pool {candidate.pool_id}"
    if demand.device_mask and candidate.device_mask != demand.device_mask:
        return f"the devices are {candidate.device_mask or 'not known'}"
    return None


def _lacking(candidate: Candidate, demand: Demand) -> str | None:
    if candidate.withheld and not candidate.models:
        return f"{_shown(candidate.withheld)} is not what its digest in the catalog says"
    if demand.engine and candidate.engine != demand.engine:
        return f"the engine is {candidate.engine}"
    if demand.model_ref and not serves_model(candidate, demand.model_ref):
        return f"the models are {_shown(candidate.models) or 'not known'}"
    if demand.ctx and candidate.ctx_max and demand.ctx > candidate.ctx_max:
        return f"the context of a slot is {candidate.ctx_max} tokens"
    return None


def _shown(models: Iterable[str]) -> str:
    return ", ".join(map(public_name, models))


def meets(candidate: Candidate, demand: Demand) -> bool:
    """Whether `candidate` can take what demands that, free or not; only a preferred one where there must be no
    fallback."""
    if demand.prefer and not demand.fallback and candidate.pool_id not in demand.prefer:
        return False
    return unmet(candidate, demand) is None


def suitable(candidates: Iterable[Candidate], demand: Demand) -> list[Candidate]:
    """Those that meet `demand`."""
    return [candidate for candidate in candidates if meets(candidate, demand)]


def pick(
    found: Sequence[Candidate],
    demand: Demand,
    strategy: Strategy,
    turn: int,
    affinity: tuple[str, str] | None = None,
) -> Candidate | None:
    """The replica that takes the task, of those that meet `demand`, sorted by key; None while all of them are busy.

    `turn` counts placements: round-robin walks by it, and random is seeded with it. `affinity` is the key of the
    replica that holds the KV cache of the task's session: it wins where it is open, and is not waited for where not.
    Of more than FEW, round-robin and random take the first that is open from their place on: to see which of thousands
    are open would be most of a placement's time, and who follows a busy one has a little more to do only.
    """
    warm = _of_key(found, affinity) if affinity else None
    if warm and warm.open and (not demand.prefer or warm.pool_id in demand.prefer):
        return warm
    if len(found) > FEW and strategy != "least-loaded" and not demand.prefer:
        return _first_open(found, random.Random(turn).randrange(len(found)) if strategy == "random" else turn)  # noqa: S311
    found = [candidate for candidate in found if candidate.open]
    if demand.prefer:
        found = [candidate for candidate in found if candidate.pool_id in demand.prefer] or found
    if not found:
        return None
    if strategy == "least-loaded":
        return min(found, key=lambda c: (-c.vram_free_bytes, c.leased, c.key))
    if strategy == "random":
        return random.Random(turn).choice(found)  # noqa: S311 -- spreads load, guards nothing
    return found[turn % len(found)]


def _of_key(found: Sequence[Candidate], key: tuple[str, str]) -> Candidate | None:
    place = bisect_left(found, key, key=lambda candidate: candidate.key)
    return found[place] if place < len(found) and found[place].key == key else None


def _first_open(found: Sequence[Candidate], place: int) -> Candidate | None:
    around = (found[(place + step) % len(found)] for step in range(len(found)))
    return next((candidate for candidate in around if candidate.open), None)


def refusal(candidates: Sequence[Candidate], demand: Demand) -> Refusal | None:
    """Why the task must be refused rather than wait; None when something may serve it sooner or later."""
    found = suitable(candidates, demand)
    alive = [candidate for candidate in found if candidate.state is not PoolState.FAILED]
    if alive:
        return None
    if found or not candidates:
        return _unready(found)
    if demand.pin and all(candidate.pool_id != demand.pin for candidate in candidates):
        known = ", ".join(sorted({candidate.pool_id for candidate in candidates}))
        return Refusal(ErrorCode.POOL_UNAVAILABLE, f"there is no pool {demand.pin}", f"Known pools: {known}.", False)
    if idle := [
        c for c in candidates if c.endpoints is not None and not (_misplaced(c, demand) or _lacking(c, demand))
    ]:
        return _other_work(idle, candidates, demand)
    # with a smaller context it could be placed
    if wide := [found.ctx_max for found in suitable(candidates, replace(demand, ctx=None)) if found.ctx_max]:
        message = f"{demand.ctx} tokens of context are asked for, room for {max(wide)}"
        return Refusal(ErrorCode.INVALID_PARAMS, message, ASK_LESS, False, "context_length_exceeded", room=max(wide))
    reasons = "; ".join(f"{candidate.pool_id}: {unmet(candidate, demand)}" for candidate in candidates[:5])
    return Refusal(ErrorCode.INVALID_PARAMS, f"no pool can serve this task: {reasons}", "See orchctl pools.", False)


def _other_work(idle: Sequence[Candidate], candidates: Sequence[Candidate], demand: Demand) -> Refusal:
    """`idle` meet all of `demand` but its workload: name the models that do it."""
    workload = WORKLOADS[demand.endpoint]
    able = [candidate for candidate in candidates if demand.endpoint in (candidate.endpoints or ())]
    names = sorted({public_name(model) for candidate in able for model in candidate.models or (candidate.pool_id,)})
    shown = ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "")
    hint = f"Models that do: {shown}." if names else f"No pool here does. {START[workload]}"
    if demand.model_ref is None and demand.pin is None:
        return Refusal(ErrorCode.INVALID_PARAMS, f"no pool that fits serves {workload} tasks", hint, False)
    asked = f"the model {demand.model_ref}" if demand.model_ref else f"pool {demand.pin}"
    others = sorted({other for candidate in idle for other in workloads_of(candidate.endpoints or frozenset())})
    message = f"{asked} does not serve {workload} tasks, only {' and '.join(others) or 'none'}"
    problem = FieldProblem(field="model_ref", problem=f"does not serve {workload} tasks")
    return Refusal(ErrorCode.INVALID_PARAMS, message, hint, False, fields=(problem,))


def _unready(failed: Sequence[Candidate]) -> Refusal:
    which = ", ".join(sorted({candidate.pool_id for candidate in failed}))
    message = f"every pool that could serve this task has failed: {which}" if which else "no pool is known yet"
    return Refusal(ErrorCode.POOL_UNREADY, message, "See orchctl pools, and journalctl -u engine-provisioner.", True)

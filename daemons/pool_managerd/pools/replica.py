"""One engine of a pool, and what becomes of it with each look at it. Pure: values in, values out.

A loading engine is `starting`. One that refuses connections is not ready at once; one that is merely slow to answer
(it may be busy) stays ready until it has missed OFFLINE_AFTER checks. Either is `offline` after as many misses, and
comes back with its first answer.
"""

from dataclasses import dataclass, replace
from enum import Enum

from llama_orch.contracts.engines import Workload
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState
from llama_orch.engines import KINDS, workloads
from llama_orch.engines.kind import Description, Slots
from llama_orch.spool import Identity

OFFLINE_AFTER = 3
SOON_S = 0.1
INTERVAL_S = 1.0

Key = tuple[str, str]
"""Pool id and replica id."""


class HealthAnswer(Enum):
    """How an engine answered its health check."""

    READY = "ready"
    LOADING = "loading"
    SILENT = "silent"
    GONE = "gone"


@dataclass(frozen=True)
class ProbeResult:
    """One look at an engine. What was not learnt is None; `kv_usage` is the part of the KV cache that is in use."""

    answer: HealthAnswer
    error: str | None = None
    slots: Slots | None = None
    details: Description | None = None
    kv_usage: float | None = None


@dataclass(frozen=True)
class Replica:
    """An engine as it was last seen.

    `incarnation` tells this announcement of it from earlier ones. `offline_since_s` is on trio's clock.
    `device_problem` says why its devices cannot be had, if they cannot.
    """

    incarnation: int
    handoff: Handoff
    identity: Identity
    slots: Slots
    details: Description | None = None
    kv_usage: float | None = None
    health: PoolState = PoolState.STARTING
    live: bool = False
    was_ready: bool = False
    misses: int = 0
    last_error: str | None = None
    offline_since_s: float | None = None
    device_problem: str | None = None

    @property
    def key(self) -> Key:
        """What it is known by; a newer announcement of the same key takes its place."""
        return self.handoff.pool_id, self.handoff.replica_id

    @property
    def state(self) -> PoolState:
        """Its state, with its devices counted in."""
        return PoolState.FAILED if self.device_problem else self.health

    @property
    def error(self) -> str | None:
        """Why it is not ready, as far as that is known."""
        return self.device_problem or self.last_error


def announced(incarnation: int, handoff: Handoff, identity: Identity) -> Replica:
    """A replica that nobody has looked at yet."""
    return Replica(incarnation, handoff, identity, assumed_slots(handoff), announced_details(handoff))


def announced_again(before: Replica, after: Replica) -> Replica:
    """`after`, an announcement of what may be the very engine of `before`, at the same address: if that has answered,
    it is as it was seen last until it is looked at. What it serves may have changed."""
    if before.handoff.device_mask == after.handoff.device_mask:
        after = replace(after, device_problem=before.device_problem)
    if not before.live:
        return after
    told = after.handoff.slots_total
    return replace(
        after,
        health=before.health,
        live=True,
        was_ready=before.was_ready,
        misses=before.misses,
        last_error=before.last_error,
        slots=before.slots if told in (None, before.slots.total) else after.slots,
    )


def announced_details(handoff: Handoff) -> Description | None:
    """What a handoff says of what its engine serves; None where the engine must be asked."""
    model, told = handoff.model, workloads.announced(handoff)
    if model is None or model.ctx_max is None or (told is None and KINDS[handoff.engine].reports_workloads):
        return None
    return Description((model.id,), model.ctx_max, tuple(told) if told else None)


def workloads_of(replica: Replica) -> list[Workload] | None:
    """The workloads of an engine: by its handoff, or else by what it answered; None where neither tells."""
    told = workloads.announced(replica.handoff) or (replica.details.workloads if replica.details else None)
    return list(told) if told else None


def assumed_slots(handoff: Handoff) -> Slots:
    """What is taken for true while an engine does not tell its slots."""
    total = handoff.slots_total or 1
    return Slots(total, total)


def seen(replica: Replica, result: ProbeResult, now_s: float) -> Replica:
    """`replica` after `result`."""
    if result.answer in (HealthAnswer.READY, HealthAnswer.LOADING):
        return _answered(replica, result)
    misses = replica.misses + 1
    missed = replace(replica, misses=misses, last_error=result.error, kv_usage=None)
    if misses >= OFFLINE_AFTER:
        since = now_s if replica.offline_since_s is None else replica.offline_since_s
        return replace(missed, health=PoolState.OFFLINE, live=False, offline_since_s=since)
    if result.answer is HealthAnswer.GONE and replica.health is PoolState.READY:
        return replace(missed, health=PoolState.STARTING, live=False)
    return missed


def _answered(replica: Replica, result: ProbeResult) -> Replica:
    ready = result.answer is HealthAnswer.READY
    return replace(
        replica,
        health=PoolState.READY if ready else PoolState.STARTING,
        live=True,
        was_ready=ready or replica.was_ready,
        misses=0,
        slots=result.slots or replica.slots,
        details=result.details or replica.details,
        kv_usage=result.kv_usage,
        last_error=result.error,
        offline_since_s=None,
    )


def next_check_s(replica: Replica) -> float:
    """Seconds until the next look: soon while something is about to change."""
    settled = replica.health is PoolState.OFFLINE or (replica.health is PoolState.READY and not replica.misses)
    return INTERVAL_S if settled else SOON_S

"""One engine of a pool, and its next state after each probe. Pure.

A loading engine is `starting`. One that refuses connections is unready at once; one that does not answer in time may be
busy, and stays ready until it has missed OFFLINE_AFTER probes. Either is `offline` after that many misses, and ready
again with its first good answer.
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
CHANGING_INTERVAL_S = 0.1
SETTLED_INTERVAL_S = 1.0

Key = tuple[str, str]
"""Pool id and replica id."""


class HealthAnswer(Enum):
    """The result of a health check. SILENT: connected, but no answer in time. GONE: no connection."""

    READY = "ready"
    LOADING = "loading"
    SILENT = "silent"
    GONE = "gone"


@dataclass(frozen=True)
class ProbeResult:
    """The result of one probe. None: not reported; `kv_usage` is the used part of the KV cache, 0 to 1."""

    answer: HealthAnswer
    error: str | None = None
    slots: Slots | None = None
    details: Description | None = None
    kv_usage: float | None = None


@dataclass(frozen=True)
class Replica:
    """An engine as of its last probe.

    `incarnation` distinguishes announcements of one engine. `offline_since_s` is on trio's clock. `device_problem` says
    why this machine cannot have the engine's devices, if so. `busy_slot_s` is how many seconds slots were busy, all
    added up, until the last probe at `probed_at_s` on trio's clock.
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
    busy_slot_s: float = 0.0
    probed_at_s: float | None = None

    @property
    def key(self) -> Key:
        """Pool id and replica id; a newer announcement with the same key replaces the replica."""
        return self.handoff.pool_id, self.handoff.replica_id

    @property
    def state(self) -> PoolState:
        """The health, or FAILED if a device is missing."""
        return PoolState.FAILED if self.device_problem else self.health

    @property
    def error(self) -> str | None:
        """Why the engine is not ready, if known."""
        return self.device_problem or self.last_error


def announced(incarnation: int, handoff: Handoff, identity: Identity) -> Replica:
    """Return a replica that was not probed yet."""
    return Replica(incarnation, handoff, identity, assumed_slots(handoff), announced_details(handoff))


def announced_again(before: Replica, after: Replica) -> Replica:
    """Return `after`, an announcement at the address of `before`, with the last known state until the next probe.

    It may be the same engine. What it serves may have changed, so that the description is dropped.
    """
    if before.handoff.device_mask == after.handoff.device_mask:
        after = replace(after, device_problem=before.device_problem)
    if not before.live:
        return after
    announced_slots = after.handoff.slots_total
    return replace(
        after,
        health=before.health,
        live=True,
        was_ready=before.was_ready,
        misses=before.misses,
        last_error=before.last_error,
        slots=before.slots if announced_slots in (None, before.slots.total) else after.slots,
    )


def announced_details(handoff: Handoff) -> Description | None:
    """Return what a handoff file says of the engine's models and workloads; None if the engine must be asked."""
    model, known = handoff.model, workloads.announced(handoff)
    if model is None or model.ctx_max is None or (known is None and KINDS[handoff.engine].reports_workloads):
        return None
    return Description((model.id,), model.ctx_max, tuple(known) if known else None)


def workloads_of(replica: Replica) -> list[Workload] | None:
    """Return the workloads of an engine by its handoff file, or by its own description; None: unknown."""
    known = workloads.announced(replica.handoff) or (replica.details.workloads if replica.details else None)
    return list(known) if known else None


def assumed_slots(handoff: Handoff) -> Slots:
    """Return the slots to assume until the engine reports them."""
    total = handoff.slots_total or 1
    return Slots(total, total)


def after_probe(replica: Replica, result: ProbeResult, now_s: float) -> Replica:
    """Return `replica` as it is after a probe."""
    if replica.probed_at_s is not None:
        busy_s = (replica.slots.total - replica.slots.free) * max(0.0, now_s - replica.probed_at_s)
        replica = replace(replica, busy_slot_s=replica.busy_slot_s + (busy_s if replica.live else 0.0))
    replica = replace(replica, probed_at_s=now_s)
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
    """Return the seconds until the next probe: short while the engine's state is about to change."""
    settled = replica.health is PoolState.OFFLINE or (replica.health is PoolState.READY and not replica.misses)
    return SETTLED_INTERVAL_S if settled else CHANGING_INTERVAL_S

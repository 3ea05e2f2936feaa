"""Fences: GPUs get no work after a hardware fault until they were reset, or an operator decides otherwise. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from pool_managerd.gpus.faults import Fault
from pool_managerd.gpus.xids import RECOVERY_ACTIONS, RECOVERY_CHANGED, Severity, xid
from pool_managerd.pools.devices import Gpu, Gpus

CODES_MAX = 8
NO_RECOVERY = "none"


@dataclass(frozen=True)
class Fence:
    """A fenced GPU. `codes` are its faults, the first one first; `since_s` is the Unix time.

    `energy_j` is the energy counter at that time: the driver starts it again with a reset. `missing`: the GPU was lost
    meanwhile. `recovery` is the driver's recovery action, if it asked for one since.
    """

    uuid: str
    device: str
    codes: tuple[int, ...]
    since_s: float
    reason: str
    action: str
    energy_j: float | None = None
    missing: bool = False
    recovery: str | None = None

    @property
    def words(self) -> str:
        """Why the GPU gets no work and what to do, as the last error of its pools."""
        return (
            f"GPU {self.device} is fenced: {self.reason}. To use it again: {self.action}; "
            f"or, if it is in order, orchctl gpus unfence {self.uuid}"
        )


@dataclass(frozen=True)
class Cleared:
    """The last end of a fence. Earlier faults are void, and so is the recovery that the driver asked for then."""

    at_s: float
    recovery: str | None = None


@dataclass(frozen=True)
class Fencing:
    """All fences, and the last end of others, by UUID."""

    fences: Mapping[str, Fence] = field(default_factory=lambda: MappingProxyType({}))
    cleared: Mapping[str, Cleared] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Step:
    """The state after an input, the fence that it has put up, and those that it has ended, with the reasons."""

    state: Fencing
    fenced: Fence | None = None
    ended: tuple[tuple[Fence, str], ...] = ()


def after_fault(state: Fencing, gpu: Gpu, fault: Fault) -> Step:
    """Fence `gpu` if the fault is one of hardware and newer than the last end of a fence."""
    known, recovery = xid(fault.code), RECOVERY_ACTIONS.get(fault.recovery or "")
    cleared = state.cleared.get(gpu.uuid)
    if cleared and fault.at_s <= cleared.at_s:
        return Step(state)
    if known.severity is not Severity.HARDWARE and not (fault.code == RECOVERY_CHANGED and recovery):
        return Step(state)
    reason = f"Xid {fault.code}, {known.meaning}" + (f" ({fault.recovery})" if recovery else "")
    return _fenced(state, gpu, fault.code, fault.at_s, reason, recovery or known.action, fault.recovery)


def _fenced(state: Fencing, gpu: Gpu, code: int, at_s: float, reason: str, action: str, recovery: str | None) -> Step:
    earlier = state.fences.get(gpu.uuid)
    if earlier:
        codes = earlier.codes if code in earlier.codes else (*earlier.codes, code)[:CODES_MAX]
        longer = replace(earlier, codes=codes, recovery=recovery or earlier.recovery)
        return Step(replace(state, fences={**state.fences, gpu.uuid: longer}))
    device = f"{gpu.label} ({gpu.name})"
    fence = Fence(gpu.uuid, device, (code,), at_s, reason, action, gpu.energy_j, recovery=recovery)
    return Step(replace(state, fences={**state.fences, gpu.uuid: fence}), fenced=fence)


def after_reading(state: Fencing, gpus: Gpus, now_s: float) -> Step:
    """Apply what a reading tells: GPUs lost, returned or reset, and recovery actions that the driver asks for.

    At most one fence is put up at a time; the next reading tells of the next GPU.
    """
    ended: list[tuple[Fence, str]] = []
    for fence in tuple(state.fences.values()):
        gpu = next((gpu for gpu in gpus.devices if gpu.uuid == fence.uuid), None)
        unknown = gpus.problem or any(not each.lost and each.gpu.uuid == fence.uuid for each in gpus.missing)
        if gpu is None:
            state = _with(state, replace(fence, missing=fence.missing or not unknown))
        elif reason := _reset_seen(fence, gpu):
            state, ended = _ended(state, fence, now_s, None), [*ended, (fence, reason)]
        elif gpu.recovery not in (None, NO_RECOVERY, fence.recovery):
            state = _with(state, replace(fence, recovery=gpu.recovery))
    fenced = None
    for gpu in _asking(state, gpus):
        action, reason = RECOVERY_ACTIONS[gpu.recovery or ""], f"the driver asks for a recovery ({gpu.recovery})"
        step = _fenced(state, gpu, RECOVERY_CHANGED, now_s, reason, action, gpu.recovery)
        state, fenced = step.state, step.fenced
        break
    return Step(_without_old_recoveries(state, gpus), fenced, tuple(ended))


def _asking(state: Fencing, gpus: Gpus) -> Iterator[Gpu]:
    """The GPUs for which the driver asks for a recovery, unless they are fenced or an operator said to go on."""
    for gpu in gpus.devices:
        if gpu.recovery in RECOVERY_ACTIONS and gpu.uuid not in state.fences:
            cleared = state.cleared.get(gpu.uuid)
            if cleared is None or cleared.recovery != gpu.recovery:
                yield gpu


def _reset_seen(fence: Fence, gpu: Gpu) -> str | None:
    """Return how it is known that the GPU was reset after it was fenced."""
    if fence.missing:
        return "the GPU was lost and has returned"
    if fence.energy_j is not None and gpu.energy_j is not None and gpu.energy_j < fence.energy_j:
        return "its counters have started again: it was reset, or its driver was loaded again"
    if fence.recovery not in (None, NO_RECOVERY) and gpu.recovery == NO_RECOVERY:
        return "the driver asks for no recovery any more"
    return None


def _without_old_recoveries(state: Fencing, gpus: Gpus) -> Fencing:
    """Forget an ignored recovery action once the driver no longer asks for it, so that the next one counts."""
    quiet = {gpu.uuid for gpu in gpus.devices if gpu.recovery in (None, NO_RECOVERY)}
    outdated = [uuid for uuid, cleared in state.cleared.items() if cleared.recovery and uuid in quiet]
    renewed = {uuid: replace(state.cleared[uuid], recovery=None) for uuid in outdated}
    return replace(state, cleared={**state.cleared, **renewed}) if renewed else state


def after_reset(state: Fencing, uuid: str, at_s: float, reason: str) -> Step:
    """End the fence of a GPU that was reset after it was put up."""
    fence = state.fences.get(uuid)
    if fence is None or at_s < fence.since_s:
        return Step(state)
    return Step(_ended(state, fence, at_s, None), ended=((fence, reason),))


def after_unfence(state: Fencing, uuid: str, recovery: str | None, now_s: float) -> Step:
    """End a fence as an operator says, although the driver may ask for the action `recovery`."""
    fence = state.fences.get(uuid)
    if fence is None:
        return Step(state)
    asked = None if recovery == NO_RECOVERY else recovery
    return Step(_ended(state, fence, now_s, asked), ended=((fence, "an operator has ended the fence"),))


def _with(state: Fencing, fence: Fence) -> Fencing:
    return state if state.fences[fence.uuid] == fence else replace(state, fences={**state.fences, fence.uuid: fence})


def _ended(state: Fencing, fence: Fence, at_s: float, recovery: str | None) -> Fencing:
    others = {uuid: other for uuid, other in state.fences.items() if uuid != fence.uuid}
    return Fencing(others, {**state.cleared, fence.uuid: Cleared(at_s, recovery)})

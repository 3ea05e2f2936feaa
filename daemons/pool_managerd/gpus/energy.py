"""The energy of GPUs, and each pool's part of it. Pure but for the meter, which owns the totals since the start."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pool_managerd.pools.devices import Gpu, Gpus, devices_of
from pool_managerd.pools.replica import Replica

GAP_MAX_S = 120.0
"""A longer time without a reading is not integrated: the power meanwhile is unknown."""


@dataclass(frozen=True)
class PowerSample:
    """What one reading tells of a GPU's energy; `at_s` is on trio's clock."""

    at_s: float
    power_w: float | None
    energy_j: float | None


def energy_between(before: PowerSample, after: PowerSample) -> float:
    """Return the energy in J between two samples: by the counter, or else by the mean power (trapezoid).

    A counter that is smaller than before has started again, and tells what was used since.
    """
    if before.energy_j is not None and after.energy_j is not None:
        used = after.energy_j - before.energy_j
        return used if used >= 0 else after.energy_j
    if before.power_w is None or after.power_w is None or after.at_s - before.at_s > GAP_MAX_S:
        return 0.0
    return max(0.0, (before.power_w + after.power_w) / 2 * (after.at_s - before.at_s))


def shares(energy_j: float, busy_s: Mapping[str, float]) -> Mapping[str, float]:
    """Divide the energy of a GPU among its pools in proportion to their busy slot time, equally if all were idle."""
    total_s = sum(busy_s.values())
    if total_s <= 0:
        return {pool_id: energy_j / len(busy_s) for pool_id in busy_s}
    return {pool_id: energy_j * seconds / total_s for pool_id, seconds in busy_s.items()}


def joules_per_1000_tokens(energy_j: float, tokens: int) -> float | None:
    """Return the energy for 1,000 generated tokens; None before there are any."""
    return energy_j * 1000 / tokens if tokens else None


class EnergyMeter:
    """Adds up energy by GPU and by pool, and the tokens that pools have generated meanwhile."""

    def __init__(self) -> None:
        self.gpus: dict[str, float] = {}
        self.pools: dict[str, float] = {}
        self.tokens: dict[str, int] = {}
        self._samples: dict[str, PowerSample] = {}
        self._busy_s: dict[int, float] = {}
        self._counters: dict[int, int] = {}

    def add_reading(self, gpus: Gpus, replicas: Iterable[Replica], now_s: float) -> None:
        """Add what was used since the last reading. A GPU's first reading is only the start."""
        replicas = tuple(replicas)
        before_s = self._busy_s
        busy = {each.incarnation: each.busy_slot_s - before_s.get(each.incarnation, 0.0) for each in replicas}
        self._busy_s = {replica.incarnation: replica.busy_slot_s for replica in replicas}
        on_gpu: dict[str, dict[str, float]] = {}
        for replica in replicas:
            for gpu in devices_of(replica.handoff.device_mask, gpus):
                pools = on_gpu.setdefault(gpu.parent_uuid or gpu.uuid, {})
                pools[replica.key[0]] = pools.get(replica.key[0], 0.0) + busy[replica.incarnation]
        for gpu in gpus.devices:
            if gpu.mig_index is None and (used := self._used(gpu, now_s)):
                self.gpus[gpu.uuid] = self.gpus.get(gpu.uuid, 0.0) + used
                for pool_id, part in shares(used, on_gpu.get(gpu.uuid, {})).items():
                    self.pools[pool_id] = self.pools.get(pool_id, 0.0) + part

    def _used(self, gpu: Gpu, now_s: float) -> float:
        if gpu.power_w is None and gpu.energy_j is None:
            return 0.0
        before, after = self._samples.get(gpu.uuid), PowerSample(now_s, gpu.power_w, gpu.energy_j)
        self._samples[gpu.uuid] = after
        return energy_between(before, after) if before else 0.0

    def add_tokens(self, replica: Replica, counter: int) -> None:
        """Add the tokens since the engine's last count. Its first count is only the start, one smaller is a restart."""
        before, pool_id = self._counters.get(replica.incarnation), replica.key[0]
        self._counters[replica.incarnation] = counter
        if before is not None:
            new = counter - before if counter >= before else counter
            self.tokens[pool_id] = self.tokens.get(pool_id, 0) + new

    def keep_only(self, replicas: Iterable[Replica]) -> None:
        """Forget pools and engines that no longer exist."""
        pools = {replica.key[0] for replica in replicas}
        here = {replica.incarnation for replica in replicas}
        self.pools = {pool_id: energy for pool_id, energy in self.pools.items() if pool_id in pools}
        self.tokens = {pool_id: tokens for pool_id, tokens in self.tokens.items() if pool_id in pools}
        self._counters = {each: tokens for each, tokens in self._counters.items() if each in here}

    def per_1000_tokens(self, pool_id: str) -> float | None:
        """Return the pool's energy for 1,000 generated tokens in J."""
        return joules_per_1000_tokens(self.pools.get(pool_id, 0.0), self.tokens.get(pool_id, 0))

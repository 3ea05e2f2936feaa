"""The loop that probes every engine: about once a second, before its handoff file is taken, faster while it loads.

Owns the time of each engine's next probe. Probes of different engines run side by side.
"""

import logging
import math
from collections.abc import Awaitable, Container
from typing import Protocol

import trio

from llama_orch.bell import Bell
from llama_orch.contracts.handoff import Handoff
from llama_orch.contracts.pools import PoolState
from llama_orch.service.watchdog import Pulse
from llama_orch.telemetry.levels import TRACE
from pool_managerd.engines.probing import probe
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import ProbeResult, Replica, announced_details, next_check_s

FIRST_PROBE_S, FIRST_EXTRAS_S = 0.5, 0.4
EXTRAS_S = 1.0
"""An engine that became ready is reported without slots and description if those take longer."""

log = logging.getLogger(__name__)


class Probe(Protocol):
    """How an engine is probed."""

    def __call__(self, handoff: Handoff, *, describe: bool, extras_s: float) -> Awaitable[ProbeResult]:
        """Probe once, bounded in time; wait for anything besides the health check at most `extras_s` seconds."""


class HealthLoop:
    """Probes the engines of `node_pools`; ring `bell` when there are new ones."""

    def __init__(self, node_pools: NodePools, metrics: Metrics, probe: Probe = probe) -> None:
        self.bell = Bell()
        self._node_pools = node_pools
        self._metrics = metrics
        self._probe_engine = probe
        self._due: dict[int, float] = {}

    async def run(self, pulse: Pulse, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Probe forever. Beats `pulse` each time."""
        async with trio.open_nursery() as probes:
            task_status.started()
            while True:
                pulse.beat()
                self._start_due(probes)
                wait_s = min(self._due.values(), default=math.inf) - trio.current_time()
                await self.bell.wait(max(0.0, min(wait_s, pulse.interval_s)))

    async def first_probe(self, handoff: Handoff) -> ProbeResult | None:
        """Probe an engine that is not known yet; None if that takes more than FIRST_PROBE_S seconds."""
        with trio.move_on_after(FIRST_PROBE_S):
            result = await self._probe_engine(
                handoff, describe=announced_details(handoff) is None, extras_s=FIRST_EXTRAS_S
            )
            self._metrics.health_check(handoff.pool_id, result.answer)
            return result
        return None

    def probe_now(self, pool_ids: Container[str]) -> None:
        """Probe the engines of these pools without waiting for the time of their next probe."""
        for replica in self._node_pools.replicas:
            if replica.key[0] in pool_ids and self._due.get(replica.incarnation, 0.0) != math.inf:
                self._due[replica.incarnation] = trio.current_time()
        self.bell.ring()

    def _start_due(self, probes: trio.Nursery) -> None:
        now_s = trio.current_time()
        replicas = {replica.incarnation: replica for replica in self._node_pools.replicas}
        self._due = {incarnation: self._due.get(incarnation, now_s) for incarnation in replicas}
        for incarnation, replica in replicas.items():
            if self._due[incarnation] <= now_s:
                self._due[incarnation] = math.inf  # not again until this probe has ended
                probes.start_soon(self._probe, replica)

    async def _probe(self, replica: Replica) -> None:
        extras_s = math.inf if replica.health is PoolState.READY else EXTRAS_S
        result = await self._probe_engine(replica.handoff, describe=replica.details is None, extras_s=extras_s)
        self._metrics.health_check(replica.handoff.pool_id, result.answer)
        log.log(TRACE, "engine of pool %s replica %s is %s", *replica.key, result.answer.value)
        after = self._node_pools.apply_probe(replica.incarnation, result)
        if after:
            self._due[replica.incarnation] = trio.current_time() + next_check_s(after)
            self.bell.ring()

"""The loop that looks at every engine: about once a second, before its handoff is taken, faster while it loads.

Owns the time of each engine's next look. Looks at different engines do not wait for each other.
"""

import logging
import math
from collections.abc import Awaitable
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

FIRST_LOOK_S, FIRST_ASIDE_S = 0.5, 0.4
ASIDE_S = 1.0
"""That an engine is ready is told without its slots, and without what it serves, where those take longer."""

log = logging.getLogger(__name__)


class Probe(Protocol):
    """How an engine is asked."""

    def __call__(self, handoff: Handoff, *, describe: bool, extras_s: float) -> Awaitable[ProbeResult]:
        """One look, bounded in time; what is not its health for `extras_s` seconds at most."""


class HealthLoop:
    """Looks at the registry's engines; `bell` wakes it when there are new ones."""

    def __init__(self, registry: NodePools, metrics: Metrics, probe: Probe = probe) -> None:
        self.bell = Bell()
        self._registry = registry
        self._metrics = metrics
        self._probe = probe
        self._due: dict[int, float] = {}

    async def run(self, pulse: Pulse, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look for ever. Beats `pulse` each turn."""
        async with trio.open_nursery() as looks:
            task_status.started()
            while True:
                pulse.beat()
                self._start_due(looks)
                wait_s = min(self._due.values(), default=math.inf) - trio.current_time()
                await self.bell.wait(max(0.0, min(wait_s, pulse.interval_s)))

    async def first_look(self, handoff: Handoff) -> ProbeResult | None:
        """A look at an engine that is not known yet; None where it takes more than FIRST_LOOK_S seconds."""
        with trio.move_on_after(FIRST_LOOK_S):
            result = await self._probe(handoff, describe=announced_details(handoff) is None, extras_s=FIRST_ASIDE_S)
            self._metrics.health_check(handoff.pool_id, result.answer)
            return result
        return None

    def _start_due(self, looks: trio.Nursery) -> None:
        now_s = trio.current_time()
        replicas = {replica.incarnation: replica for replica in self._registry.replicas}
        self._due = {incarnation: self._due.get(incarnation, now_s) for incarnation in replicas}
        for incarnation, replica in replicas.items():
            if self._due[incarnation] <= now_s:
                self._due[incarnation] = math.inf  # not again while this look lasts
                looks.start_soon(self._look, replica)

    async def _look(self, replica: Replica) -> None:
        extras_s = math.inf if replica.health is PoolState.READY else ASIDE_S
        result = await self._probe(replica.handoff, describe=replica.details is None, extras_s=extras_s)
        self._metrics.health_check(replica.handoff.pool_id, result.answer)
        log.log(TRACE, "engine of pool %s replica %s is %s", *replica.key, result.answer.value)
        after = self._registry.saw(replica.incarnation, result)
        if after:
            self._due[replica.incarnation] = trio.current_time() + next_check_s(after)
            self.bell.ring()

"""The loop that keeps the machine awake while it works, and has it suspended when it has been idle for long enough.

This daemon does not suspend the machine itself, which takes privileges: it asks the queen, then writes a file that
llama-orch-suspend.path watches. trio's clock (CLOCK_MONOTONIC) stands still while the machine sleeps, so that times of
idleness and heartbeats go on where they were; CLOCK_BOOTTIME tells how long it slept.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import trio

from llama_orch.telemetry.events import power as events
from llama_orch.telemetry.records import emit
from pool_managerd.cluster.agent import Agent
from pool_managerd.cluster.interfaces import Unwakeable
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.power.activity import hold, work
from pool_managerd.power.sleep_lock import SleepLock
from pool_managerd.provisioner_client import ProvisionerClient

LOOK_S = 5.0
"""How often to look what the machine does."""
RETRY_S = 60.0
"""How long to wait after the queen or the interface was against it."""
SUSPEND_S = 60.0
"""How long the suspension may take to begin: other programs may delay it, and drivers save the memory of GPUs."""
POLL_S = 1.0
SLEPT_S = 0.5
"""From how many seconds the machine counts as having slept."""
REQUEST = "suspend-request"

log = logging.getLogger(__name__)


def slept_s() -> float:
    """Return how long this machine has been suspended since it started, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Power:
    """`request` is the file to write. `suspend_after_s`: None for never; otherwise an `agent` is needed."""

    def __init__(
        self,
        node_pools: NodePools,
        provisioner: ProvisionerClient,
        lock: SleepLock,
        agent: Agent | None,
        request: Path,
        suspend_after_s: float | None,
        slept_s: Callable[[], float] = slept_s,
    ) -> None:
        self._node_pools = node_pools
        self._provisioner = provisioner
        self._lock = lock
        self._agent = agent
        self._request = request
        self._after_s = suspend_after_s
        self._slept_s = slept_s
        self._idle_since = trio.current_time()
        self._ask_at = self._idle_since
        self._taken = 0
        self._awake_for: str | None = None
        self._unwakeable = ""

    @property
    def line(self) -> str | None:
        """When the machine is suspended, or what keeps it awake; None if it never is."""
        if self._after_s is None:
            return None
        if self._awake_for:
            return f"awake: {self._awake_for}"
        left_s = max(self._idle_since + self._after_s, self._ask_at) - trio.current_time()
        return f"idle, suspended in {max(0.0, left_s):.0f} s"

    async def run(self) -> None:
        """Look every LOOK_S seconds, forever."""
        self._withdraw()  # of an earlier run
        try:
            while True:
                await self._look()
                await trio.sleep(LOOK_S)
        finally:
            self._lock.release()

    async def _look(self) -> None:
        found = await self._work()
        if found:
            await self._lock.hold(found)
        else:
            self._lock.release()
        if self._after_s is None or self._agent is None:
            return
        now, taken = trio.current_time(), self._node_pools.leases.taken
        self._awake_for = found or self._hold()
        if self._awake_for or taken != self._taken:
            self._idle_since, self._taken = now, taken
        elif now >= max(self._idle_since + self._after_s, self._ask_at):
            await self._suspend(self._agent)

    async def _work(self) -> str | None:
        return work(self._node_pools.pools, await self._provisioner.operations())

    def _hold(self) -> str | None:
        return hold(self._node_pools.pools, node_drained=self._node_pools.drained.node)

    async def _suspend(self, agent: Agent) -> None:
        """Suspend the machine if the queen agrees, and return when it is awake again."""
        try:
            refusal = await agent.fall_asleep()
            if refusal is not None:
                self._report_refusal(refusal)
                self._ask_at = trio.current_time() + RETRY_S
            elif not (await self._work() or self._hold()):
                await self._request_and_wait()
        finally:
            agent.wake_up()

    async def _request_and_wait(self) -> None:
        before_s = self._slept_s()
        try:
            self._request.touch()  # in memory, as all of /run: no thread is needed
        except OSError as error:
            self._failed(f"{self._request} cannot be written: {error.strerror or error}")
            return
        emit(events.SUSPEND_REQUESTED, idle_s=round(trio.current_time() - self._idle_since))
        with trio.move_on_after(SUSPEND_S):
            while self._slept_s() - before_s < SLEPT_S:  # noqa: ASYNC110 -- no event tells of a suspension
                await trio.sleep(POLL_S)
        slept_s = self._slept_s() - before_s
        self._idle_since = trio.current_time()
        if slept_s >= SLEPT_S:
            emit(events.SUSPEND_ENDED, slept_s=round(slept_s))
        elif self._withdraw():
            self._failed("nothing has taken the request; is llama-orch-suspend.path enabled?")
        else:
            self._failed(f"it was not suspended within {SUSPEND_S:g} s")

    def _failed(self, reason: str) -> None:
        self._idle_since = trio.current_time()
        emit(events.SUSPEND_FAILED, reason=reason)

    def _withdraw(self) -> bool:
        """Remove the request, if it is still there; return whether it was."""
        try:
            self._request.unlink()
        except OSError:
            return False
        return True

    def _report_refusal(self, refusal: Unwakeable | str) -> None:
        if not isinstance(refusal, Unwakeable):
            log.debug("this machine is not suspended: %s", refusal)
        elif refusal.reason != self._unwakeable:
            self._unwakeable = refusal.reason
            emit(events.SUSPEND_UNAVAILABLE, reason=refusal.reason)

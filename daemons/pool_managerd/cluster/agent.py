"""The loop that keeps this node registered with the queen: registration, heartbeats, deregistration.

Owns the registration state. Queen and node may start in any order and restart at any time.
"""

import random
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

from llama_orch import VERSION
from llama_orch.contracts.nodes import MAX_GPUS, MAX_POOLS, Heartbeat, NodeCapabilities, NodeRegistration, NodeStanding
from llama_orch.contracts.wake import Wake
from llama_orch.telemetry.events import pools as events
from llama_orch.telemetry.records import emit
from pool_managerd.cluster.addressing import AddressUnknown, is_only_local
from pool_managerd.cluster.capabilities import capabilities
from pool_managerd.cluster.interfaces import Unwakeable
from pool_managerd.cluster.queen_client import QueenClient
from pool_managerd.cluster.registration import (
    EARLY_MAX,
    HeartbeatAccepted,
    NoAnswer,
    NodeUnknown,
    Outcome,
    Registered,
    RegistrationState,
    early_heartbeat_at,
    next_state,
)
from pool_managerd.cluster.snapshots import PlacementView, gpu_summaries, placement_view, snapshots
from pool_managerd.cluster.suspension import Suspension
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.wait_any import wait_any

LEAVE_S = 2.0
MEMORY_MAX = MAX_GPUS + 1
LOGGED_MAX = 16
"""How many messages are remembered, so that none is repeated before the queen accepts a heartbeat."""
ADDRESS_S = 1.0
GPUS_S = 3.0
"""How long the first registration waits for GPU discovery."""


async def _unwakeable() -> Wake | Unwakeable:
    return Unwakeable("it is not known how to wake it")


@dataclass(frozen=True)
class NodeIdentity:
    """What stays the same while the daemon runs; `queen_url` is for messages.

    `instance_id` distinguishes this run from earlier ones, and from another pool-managerd with the same node id.
    """

    node_id: str
    machine_id: str
    queen_url: str
    interval_s: float
    cpu_cores: int
    ram_total_bytes: int
    address: Callable[[], Awaitable[str]]
    wake: Callable[[], Awaitable[Wake | Unwakeable]] = _unwakeable
    instance_id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Agent:
    """Represents `node` to the queen. `run` is its loop; `leave` ends the loop and deregisters."""

    def __init__(self, node: NodeIdentity, queen: QueenClient, node_pools: NodePools) -> None:
        self._node = node
        self._queen = queen
        self._node_pools = node_pools
        self._state = RegistrationState()
        self._logged: deque[str] = deque(maxlen=LOGGED_MAX)
        self._troubled = False
        self._sent: PlacementView = ()
        self._registered_as: NodeCapabilities | None = None
        self._registered_at = ""
        self._warning: str | None = None
        self._early: deque[float] = deque(maxlen=EARLY_MAX)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._changed = trio.Event()
        self._wake: Wake | None = None
        self._suspension = Suspension()

    @property
    def line(self) -> str:
        """The registration in one line, for `systemctl status`."""
        state, url = self._state, self._node.queen_url
        if state.trouble:
            return f"{'no answer from' if state.registered else 'not registered with'} {url}: {state.trouble}"
        return f"registered with {url}" if state.registered else f"registering with {url}"

    @property
    def view(self) -> NodeStanding:
        """The registration as GET /v2/node reports it."""
        node, state = self._node, self._state
        return NodeStanding(
            profile="cloud",
            version=VERSION,
            node_id=node.node_id,
            machine_id=node.machine_id,
            queen_url=node.queen_url,
            registered=state.registered,
            problem=state.trouble,
        )

    async def changed(self, shown: str) -> None:
        """Return when `line` differs from `shown`."""
        while self.line == shown:
            await self._changed.wait()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Register and send heartbeats until `leave`."""
        task_status.started()
        try:
            with self._scope:
                with trio.move_on_after(GPUS_S):
                    await self._node_pools.gpus_discovered.wait()
                while True:
                    await self._send()
                    await self._wait()
        finally:
            self._ended.set()

    async def leave(self) -> None:
        """Deregister, if registered, so that the queen places nothing more here. Takes at most LEAVE_S seconds."""
        registered = self._state.registered
        self._scope.cancel()
        outcome: Outcome = NoAnswer(f"no answer within {LEAVE_S:g} s")
        with trio.move_on_after(LEAVE_S):
            await self._ended.wait()
            if not registered:
                return
            outcome = await self._queen.forget(self._node.node_id, self._node.instance_id)
        if isinstance(outcome, NodeUnknown):
            emit(events.REGISTRATION_WITHDRAWN, node_id=self._node.node_id, queen=self._node.queen_url)

    async def fall_asleep(self) -> Unwakeable | str | None:
        """Ask the queen whether this machine may be suspended; return why not, None if it may.

        Then no heartbeat is sent until `wake_up`, which must be called in either case.
        """
        wake = await self._node.wake()
        if isinstance(wake, Unwakeable):
            return wake
        if wake != self._wake:
            self._registered_as = None  # registers again, with `wake`, before the heartbeat that asks
        return await self._suspension.ask()

    def wake_up(self) -> None:
        """Send a heartbeat as soon as possible, and let the queen use this machine."""
        self._suspension.end()

    async def _send(self) -> None:
        """Send a heartbeat, or a registration if the queen does not know the node as it is now."""
        hardware = self._capabilities()
        if self._state.registered and hardware == self._registered_as and not await self._moved():
            outcome = await self._heartbeat()
        else:
            outcome = await self._register(hardware)
        interval_s = self._node.interval_s
        self._state = next_state(self._state, outcome, interval_s, random.random())  # noqa: S311 -- jitter
        self._log(outcome)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _capabilities(self) -> NodeCapabilities:
        return capabilities(self._node_pools.gpus, self._node.cpu_cores, self._node.ram_total_bytes)

    async def _moved(self) -> bool:
        """Whether the node's address has changed since it registered, as by DHCP.

        False if it cannot be determined within ADDRESS_S seconds: a slow name server must not delay heartbeats.
        """
        with trio.move_on_after(ADDRESS_S), suppress(AddressUnknown):
            return await self._node.address() != self._registered_at
        return False

    async def _register(self, hardware: NodeCapabilities) -> Outcome:
        node = self._node
        try:
            address = await node.address()
        except AddressUnknown as error:
            return NoAnswer(str(error))
        wake = await self._how_to_wake()
        registration = NodeRegistration(
            node_id=node.node_id,
            machine_id=node.machine_id,
            instance_id=node.instance_id,
            address=address,
            pools=[pool.pool_id for pool in self._node_pools.pools[:MAX_POOLS]],
            capabilities=hardware,
            version=VERSION,
            heartbeat_interval_ms=round(node.interval_s * 1000),
            wake=wake,
        )
        outcome = await self._queen.register(registration)
        if isinstance(outcome, Registered):
            self._registered_as, self._registered_at, self._wake = hardware, address, wake
            self._log_registered(outcome, address)
        return outcome

    async def _how_to_wake(self) -> Wake | None:
        with trio.move_on_after(ADDRESS_S):
            found = await self._node.wake()
            return found if isinstance(found, Wake) else None
        return None

    async def _heartbeat(self) -> Outcome:
        pools, draining = self._node_pools.pools, self._node_pools.drained.node
        self._sent = placement_view(pools, draining, self._node_pools.memory_readings)
        asked = self._suspension.asked
        heartbeat = Heartbeat(
            timestamp=datetime.now(UTC),
            machine_id=self._node.machine_id,
            instance_id=self._node.instance_id,
            draining=draining,
            sleeping=asked,
            memory=self._node_pools.memory[-MEMORY_MAX:],
            pools=snapshots(pools, self._node.node_id),
            gpus=gpu_summaries(self._node_pools.gpus),
        )
        outcome = await self._queen.heartbeat(self._node.node_id, heartbeat)
        if asked and isinstance(outcome, HeartbeatAccepted):
            self._suspension.answer(agreed=outcome.may_sleep)
        return outcome

    async def _wait(self) -> None:
        """Wait until the next request is due, or until a change that matters for placement. Not while asleep."""
        if self._suspension.agreed:
            await self._suspension.over()
            return
        with trio.move_on_after(self._state.wait_s):
            if not self._state.steady:
                await trio.sleep_forever()
            await wait_any(self._placement_changed, self._suspension.begun)
            await trio.sleep_until(early_heartbeat_at(self._early, trio.current_time()))
            self._early.append(trio.current_time())

    async def _placement_changed(self) -> None:
        """Return when the placement view differs from that of the last heartbeat."""
        node_pools = self._node_pools
        while placement_view(node_pools.pools, node_pools.drained.node, node_pools.memory_readings) == self._sent:
            await node_pools.settled()

    def _log_registered(self, outcome: Registered, address: str) -> None:
        if not self._is_news(address):
            return
        fields = {"node_id": self._node.node_id, "queen": self._node.queen_url}
        self._troubled = False
        emit(events.REGISTRATION_ACCEPTED, **fields, address=address)
        if outcome.warning:
            emit(events.REGISTRATION_WARNING, **fields, warning=outcome.warning)
        if is_only_local(address, self._node.queen_url):
            emit(events.REGISTRATION_LOCAL, **fields, address=address)

    def _log(self, outcome: Outcome) -> None:
        """Log a failure, once for each cause, and its end."""
        fields = {"node_id": self._node.node_id, "queen": self._node.queen_url}
        if isinstance(outcome, HeartbeatAccepted):
            if self._troubled:
                emit(events.QUEEN_ANSWERS, **fields)
            self._logged.clear()
            if outcome.warning and outcome.warning != self._warning:
                emit(events.REGISTRATION_WARNING, **fields, warning=outcome.warning)
            self._warning = outcome.warning
        trouble = self._state.trouble
        self._troubled = trouble is not None or (self._troubled and not isinstance(outcome, HeartbeatAccepted))
        if trouble is not None and self._is_news(trouble):
            event = events.QUEEN_SILENT if isinstance(outcome, NoAnswer) else events.REGISTRATION_REFUSED
            emit(event, **fields, reason=trouble)

    def _is_news(self, message: str) -> bool:
        """Whether `message` was not logged since the last accepted heartbeat.

        Without this, a queen that accepts registrations and then rejects each heartbeat would fill the log.
        """
        if message in self._logged:
            return False
        self._logged.append(message)
        return True

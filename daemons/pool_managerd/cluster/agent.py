"""Keeps the queen of a cluster informed of this node: registration, heartbeats, farewell.

Owns how the node stands with her. Both may start in any order and restart at any time; nothing is ever given up.
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
from llama_orch.contracts.nodes import MAX_POOLS, Heartbeat, NodeCapabilities, NodeRegistration, NodeStanding
from llama_orch.telemetry.events import pools as events
from llama_orch.telemetry.records import emit
from pool_managerd.cluster.addressing import AddressUnknown, only_here
from pool_managerd.cluster.capabilities import capabilities
from pool_managerd.cluster.queen import Queen
from pool_managerd.cluster.snapshots import View, placement_view, snapshots
from pool_managerd.cluster.standing import (
    EARLY_MOST,
    Accepted,
    Heard,
    Outcome,
    Silent,
    Standing,
    Unknown,
    after,
    early_at,
)
from pool_managerd.pools.registry import Registry

LEAVE_S = 2.0
SAID_MOST = 16
"""So many lines of the log are not repeated before the queen takes a heartbeat."""
ADDRESS_S = 1.0
GPUS_S = 3.0
"""A registration waits so long for the first look at the GPUs."""


@dataclass(frozen=True)
class Node:
    """What stays the same about this node while it runs; `queen_url` is for people. `instance_id` tells this run from
    earlier ones, and from another pool-managerd that was given the same node id."""

    node_id: str
    machine_id: str
    queen_url: str
    interval_s: float
    cpu_cores: int
    ram_total_bytes: int
    address: Callable[[], Awaitable[str]]
    instance_id: str = field(default_factory=lambda: uuid.uuid4().hex)


class Agent:
    """Speaks for `node`. `run` is its loop; `leave` ends that and takes leave of the queen."""

    def __init__(self, node: Node, queen: Queen, registry: Registry) -> None:
        self._node = node
        self._queen = queen
        self._registry = registry
        self._standing = Standing()
        self._said: deque[str] = deque(maxlen=SAID_MOST)
        self._troubled = False
        self._sent: View = ()
        self._registered_as: NodeCapabilities | None = None
        self._registered_at = ""
        self._warning: str | None = None
        self._early: deque[float] = deque(maxlen=EARLY_MOST)
        self._scope = trio.CancelScope()
        self._ended = trio.Event()
        self._changed = trio.Event()

    @property
    def line(self) -> str:
        """How it stands, for `systemctl status`."""
        standing, url = self._standing, self._node.queen_url
        if standing.trouble:
            return f"{'no answer from' if standing.registered else 'not registered with'} {url}: {standing.trouble}"
        return f"registered with {url}" if standing.registered else f"registering with {url}"

    @property
    def view(self) -> NodeStanding:
        """How it stands, for those who look for what is wrong."""
        node, standing = self._node, self._standing
        return NodeStanding(
            profile="cloud",
            version=VERSION,
            node_id=node.node_id,
            machine_id=node.machine_id,
            queen_url=node.queen_url,
            registered=standing.registered,
            problem=standing.trouble,
        )

    async def changed(self, shown: str) -> None:
        """Return when `line` is another than `shown`."""
        while self.line == shown:
            await self._changed.wait()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the queen informed until `leave`."""
        task_status.started()
        try:
            with self._scope:
                with trio.move_on_after(GPUS_S):
                    await self._registry.gpus_looked.wait()
                while True:
                    await self._turn()
                    await self._wait()
        finally:
            self._ended.set()

    async def leave(self) -> None:
        """Have the queen place nothing more here, if she knows this node; takes LEAVE_S seconds at most."""
        known = self._standing.registered
        self._scope.cancel()
        outcome: Outcome = Silent(f"no answer within {LEAVE_S:g} s")
        with trio.move_on_after(LEAVE_S):
            await self._ended.wait()
            if not known:
                return
            outcome = await self._queen.forget(self._node.node_id, self._node.instance_id)
        if isinstance(outcome, Unknown):
            emit(events.REGISTRATION_WITHDRAWN, node_id=self._node.node_id, queen=self._node.queen_url)

    async def _turn(self) -> None:
        made_of = self._capabilities()
        if self._standing.registered and made_of == self._registered_as and not await self._moved():
            outcome = await self._heartbeat()
        else:
            outcome = await self._register(made_of)
        interval_s = self._node.interval_s
        self._standing = after(self._standing, outcome, interval_s, random.random())  # noqa: S311 -- jitter
        self._say(outcome)
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def _capabilities(self) -> NodeCapabilities:
        return capabilities(self._registry.gpus, self._node.cpu_cores, self._node.ram_total_bytes)

    async def _moved(self) -> bool:
        """Whether this node's address has changed since it registered, as by DHCP. False where that cannot be found
        out within ADDRESS_S seconds: a slow name server must not hold up heartbeats."""
        with trio.move_on_after(ADDRESS_S), suppress(AddressUnknown):
            return await self._node.address() != self._registered_at
        return False

    async def _register(self, made_of: NodeCapabilities) -> Outcome:
        node = self._node
        try:
            address = await node.address()
        except AddressUnknown as error:
            return Silent(str(error))
        registration = NodeRegistration(
            node_id=node.node_id,
            machine_id=node.machine_id,
            instance_id=node.instance_id,
            address=address,
            pools=[pool.pool_id for pool in self._registry.pools[:MAX_POOLS]],
            capabilities=made_of,
            version=VERSION,
            heartbeat_interval_ms=round(node.interval_s * 1000),
        )
        outcome = await self._queen.register(registration)
        if isinstance(outcome, Accepted):
            self._registered_as, self._registered_at = made_of, address
            self._say_accepted(outcome, address)
        return outcome

    async def _heartbeat(self) -> Outcome:
        pools, draining = self._registry.pools, self._registry.drained.node
        self._sent = placement_view(pools, draining)
        beat = Heartbeat(
            timestamp=datetime.now(UTC),
            machine_id=self._node.machine_id,
            instance_id=self._node.instance_id,
            draining=draining,
            pools=snapshots(pools, self._node.node_id),
        )
        return await self._queen.heartbeat(self._node.node_id, beat)

    async def _wait(self) -> None:
        """Until the next turn: its time, or a change that matters for placement."""
        with trio.move_on_after(self._standing.wait_s):
            if not self._standing.steady:
                await trio.sleep_forever()
            await self._news()
            await trio.sleep_until(early_at(self._early, trio.current_time()))
            self._early.append(trio.current_time())

    async def _news(self) -> None:
        """Return when placement would see another node than the last heartbeat told of."""
        registry = self._registry
        while placement_view(registry.pools, registry.drained.node) == self._sent:
            await registry.changed(registry.revision)

    def _say_accepted(self, accepted: Accepted, address: str) -> None:
        if not self._is_new(address):
            return
        names = {"node_id": self._node.node_id, "queen": self._node.queen_url}
        self._troubled = False
        emit(events.REGISTRATION_ACCEPTED, **names, address=address)
        if accepted.warning:
            emit(events.REGISTRATION_WARNING, **names, warning=accepted.warning)
        if only_here(address, self._node.queen_url):
            emit(events.REGISTRATION_LOCAL, **names, address=address)

    def _say(self, outcome: Outcome) -> None:
        """Tell an operator what has gone wrong, once for each cause, and when it is over."""
        names = {"node_id": self._node.node_id, "queen": self._node.queen_url}
        if isinstance(outcome, Heard):
            if self._troubled:
                emit(events.QUEEN_ANSWERS, **names)
            self._said.clear()
            if outcome.warning and outcome.warning != self._warning:
                emit(events.REGISTRATION_WARNING, **names, warning=outcome.warning)
            self._warning = outcome.warning
        trouble = self._standing.trouble
        self._troubled = trouble is not None or (self._troubled and not isinstance(outcome, Heard))
        if trouble is not None and self._is_new(trouble):
            event = events.QUEEN_SILENT if isinstance(outcome, Silent) else events.REGISTRATION_REFUSED
            emit(event, **names, reason=trouble)

    def _is_new(self, words: str) -> bool:
        """Whether the log has yet to say so since the queen last took a heartbeat: one that takes a registration and
        then refuses each heartbeat, or forgets the node, would have it said every few seconds."""
        if words in self._said:
            return False
        self._said.append(words)
        return True

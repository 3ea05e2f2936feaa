"""A simple model of what queen-rbee must know about its fleet: one value per node, changed by messages and silence."""

from collections import Counter
from dataclasses import dataclass, field, replace

from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.pools import PoolState
from queen_rbee.fleet.fleet import FORGET_AFTER_S, GRACE_S
from queen_rbee.pools.candidates import ReplicaKey
from tests.unit.queen_rbee.fleet_rig import TIMEOUT_MS

TIMEOUT_S = TIMEOUT_MS / 1000


@dataclass(frozen=True)
class KnownNode:
    """`heard`: it has sent a heartbeat since it registered. `superseded`: instances that a restart replaced."""

    machine: str
    address: str
    heard_at: float
    heard: bool = False
    pools: tuple[PoolSnapshot, ...] = ()
    draining: bool = False
    offline: bool = False
    instance: str | None = None
    superseded: frozenset[str] = frozenset()

    @property
    def online(self) -> bool:
        return self.heard and not self.offline

    def takes(self, pool: PoolSnapshot) -> bool:
        """Whether tasks may be placed on `pool` if it has a free slot."""
        return pool.ready and not (self.offline or self.draining or pool.draining)


@dataclass
class FleetModel:
    """The nodes that queen-rbee must know, by id."""

    nodes: dict[str, KnownNode] = field(default_factory=dict)

    def registers(self, node_id: str, machine: str, instance: str | None, address: str, now: float) -> int:
        """Return the expected HTTP status."""
        known = self.nodes.get(node_id)
        superseded: frozenset[str] = frozenset()
        if known:
            same = known.instance == instance
            restarted = known.address == address and instance not in known.superseded
            if not known.offline and (known.machine != machine or not (same or restarted)):
                return 409
            replaced = {known.instance} if known.instance and not same else set()
            superseded = known.superseded | replaced
        self.nodes[node_id] = KnownNode(machine, address, now, instance=instance, superseded=superseded - {instance})
        return 200

    def beats(
        self,
        node_id: str,
        machine: str,
        instance: str | None,
        pools: tuple[PoolSnapshot, ...],
        draining: bool,
        now: float,
    ) -> int:
        """Return the expected HTTP status."""
        known = self.nodes.get(node_id)
        if known is None:
            return 404
        if (known.machine, known.instance) != (machine, instance):
            return 409
        self.nodes[node_id] = replace(known, heard_at=now, heard=True, pools=pools, draining=draining, offline=False)
        return 200

    def leaves(self, node_id: str, instance: str | None) -> int:
        """Return the expected HTTP status."""
        known = self.nodes.get(node_id)
        if known and instance not in (None, known.instance):
            return 409
        return 204 if self.nodes.pop(node_id, None) else 404

    def checked(self, now: float) -> None:
        """Apply the check for silent nodes."""
        for node_id, node in list(self.nodes.items()):
            silent_s = now - node.heard_at
            if node.offline and silent_s > FORGET_AFTER_S:
                del self.nodes[node_id]
            elif silent_s > TIMEOUT_S:
                self.nodes[node_id] = replace(node, offline=True)

    def restarted(self, now: float) -> None:
        """Apply a restart: the nodes stay known, and each gets time to send a heartbeat."""
        for node_id, node in self.nodes.items():
            extra_s = max(0.0, GRACE_S - TIMEOUT_S)
            self.nodes[node_id] = replace(node, heard_at=now + extra_s, superseded=frozenset())

    @property
    def online(self) -> int:
        return sum(node.online for node in self.nodes.values())

    @property
    def ready_by_id(self) -> dict[str, int]:
        """The number of ready pools by pool id."""
        ready: Counter[str] = Counter()
        for node in self.nodes.values():
            for pool in node.pools:
                ready[pool.pool_id] += pool.ready and not node.offline
        return dict(ready)

    @property
    def places(self) -> dict[ReplicaKey, tuple[str, PoolState, bool, int]]:
        """Each pool of each node: its engine's URL, its state, whether it takes tasks, its slots."""
        return {
            (pool.pool_id, node_id): (
                f"{node.address}/v2/pools/{pool.pool_id}/engine",
                PoolState.OFFLINE if node.offline else pool.state,
                node.takes(pool),
                pool.slots_total,
            )
            for node_id, node in self.nodes.items()
            for pool in node.pools
        }

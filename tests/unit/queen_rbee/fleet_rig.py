"""Registrations, snapshots and heartbeats of nodes, and a fleet over a store in memory."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from llama_orch.bell import Bell
from llama_orch.contracts.nodes import Heartbeat, NodeRegistration, PoolSnapshot
from llama_orch.contracts.pools import PoolState
from llama_orch.engines.wire.adapters import adapters
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.metrics import Metrics
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.shared.in_process import StoredNodes
from tests.unit.queen_rbee.memory_store import MemoryStore

MACHINE, OTHER_MACHINE = "a" * 32, "b" * 32
INSTANCE, OTHER_INSTANCE = "1" * 32, "2" * 32
TIMEOUT_MS, CHECK_S = 5000, 1.0


def registration(node_id: str = "n1", **changes) -> NodeRegistration:
    defaults = {"node_id": node_id, "machine_id": MACHINE, "address": f"http://{node_id}:9200", "version": "1"}
    return NodeRegistration(**{**defaults, "heartbeat_interval_ms": 1000, **changes})


def snapshot(node_id: str = "n1", pool_id: str = "p", **changes) -> PoolSnapshot:
    defaults = {"pool_id": pool_id, "node_id": node_id, "ready": True, "draining": False, "engine": "llamacpp"}
    return PoolSnapshot(**{**defaults, "slots_total": 2, "slots_free": 2, "models_available": ["m"], **changes})


def heartbeat(node_id: str = "n1", **changes) -> Heartbeat:
    pools = changes.pop("pools", [snapshot(node_id)])
    return Heartbeat(**{"timestamp": datetime.now(UTC), "machine_id": MACHINE, "pools": pools, **changes})


def failed(node_id: str = "n1") -> PoolSnapshot:
    return snapshot(node_id, ready=False, state=PoolState.FAILED)


@dataclass
class FleetRig:
    """A fleet with its collaborators. `displaced` lists the replicas whose tasks were displaced."""

    store: MemoryStore = field(default_factory=MemoryStore)
    displaced: list[tuple[str, str]] = field(default_factory=list)
    registry: PoolRegistry = field(default_factory=lambda: PoolRegistry(Bell(), adapters()))

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.fleet = Fleet(self.registry, StoredNodes(self.store), self.metrics, self._displace, TIMEOUT_MS, CHECK_S)

    def _displace(self, keys, _reason: str) -> int:
        self.displaced += keys
        return len(self.displaced)

    async def join(self, node_id: str = "n1", **changes) -> None:
        """Register a node and send its first heartbeat."""
        await self.fleet.register(registration(node_id, **changes), "192.0.2.1")
        self.fleet.heartbeat(node_id, heartbeat(node_id, machine_id=changes.get("machine_id", MACHINE)))

    def status(self, node_id: str = "n1") -> str:
        return self.fleet.node(node_id).status

    @property
    def open_nodes(self) -> set[str]:
        """The nodes on which tasks can be placed."""
        return {replica.node_id or "" for replica in self.registry.replicas.all() if replica.open}

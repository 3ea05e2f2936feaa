"""Registrations, snapshots and heartbeats for tests, and a fleet with an in-memory store."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from llama_orch.bell import Bell
from llama_orch.contracts.nodes import Heartbeat, NodeRegistration, PoolSnapshot
from llama_orch.contracts.pools import PoolState
from llama_orch.engines.wire.adapters import adapters
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.metrics import Metrics
from queen_rbee.pools.registry import PoolRegistry
from tests.unit.queen_rbee.memory_store import MemoryStore

MACHINE, OTHER_MACHINE = "a" * 32, "b" * 32
INSTANCE, OTHER_INSTANCE = "1" * 32, "2" * 32
TIMEOUT_MS, CHECK_S = 5000, 1.0


def registration(node_id: str = "n1", **changes) -> NodeRegistration:
    default = {"node_id": node_id, "machine_id": MACHINE, "address": f"http://{node_id}:9200", "version": "1"}
    return NodeRegistration(**{**default, "heartbeat_interval_ms": 1000, **changes})


def snapshot(node_id: str = "n1", pool_id: str = "p", **changes) -> PoolSnapshot:
    default = {"pool_id": pool_id, "node_id": node_id, "ready": True, "draining": False, "engine": "llamacpp"}
    return PoolSnapshot(**{**default, "slots_total": 2, "slots_free": 2, "models_available": ["m"], **changes})


def heartbeat(node_id: str = "n1", **changes) -> Heartbeat:
    pools = changes.pop("pools", [snapshot(node_id)])
    return Heartbeat(**{"timestamp": datetime.now(UTC), "machine_id": MACHINE, "pools": pools, **changes})


def failed(node_id: str = "n1") -> PoolSnapshot:
    return snapshot(node_id, ready=False, state=PoolState.FAILED)


@dataclass
class Rig:
    """A fleet with its registry; `interrupted` are the replicas whose tasks the fleet interrupted."""

    store: MemoryStore = field(default_factory=MemoryStore)
    interrupted: list[tuple[str, str]] = field(default_factory=list)
    registry: PoolRegistry = field(default_factory=lambda: PoolRegistry(Bell(), adapters()))

    def __post_init__(self) -> None:
        self.metrics = Metrics()
        self.fleet = Fleet(self.registry, self.store, self.metrics, self._interrupt_tasks, TIMEOUT_MS, CHECK_S)

    def _interrupt_tasks(self, keys, _reason: str) -> int:
        self.interrupted += keys
        return len(self.interrupted)

    async def join(self, node_id: str = "n1", **changes) -> None:
        """Register a node and send its first heartbeat."""
        await self.fleet.register(registration(node_id, **changes), "192.0.2.1")
        self.fleet.heartbeat(node_id, heartbeat(node_id, machine_id=changes.get("machine_id", MACHINE)))

    def status(self, node_id: str = "n1") -> str:
        return self.fleet.node(node_id).status

    @property
    def open_nodes(self) -> set[str]:
        """The nodes that tasks can be placed on."""
        return {found.node_id or "" for found in self.registry.replicas.all() if found.open}

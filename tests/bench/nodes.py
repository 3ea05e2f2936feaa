"""Simulated nodes that register with queen-rbee and send heartbeats with their pools when these are due.

Each node has its own loopback address, 127.1.x.y, so that queen-rbee opens as many connections as to real nodes. One
relay (relays.py) listens on all of them.
"""

import random
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio

from llama_orch import VERSION
from llama_orch.contracts.nodes import Heartbeat, HeartbeatAnswer, NodeRegistration, PoolSnapshot
from tests.bench.wire import Answer, Broken, Wire

POOLS, SLOTS = 8, 4
INTERVAL_MS = 10_000
GIB = 1 << 30


def models() -> list[str]:
    """Return the models of the pools of a node. Every node has a pool for each model."""
    return [f"model-{number}" for number in range(POOLS)]


@dataclass
class NodeObservations:
    """Observations of all nodes: durations of heartbeats in seconds, and arrival times of tasks on trio's clock."""

    beats: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    reconnected: int = 0
    arrived: dict[int, float] = field(default_factory=dict)

    def reset(self) -> None:
        """Discard the observations about heartbeats."""
        self.beats.clear()
        self.statuses.clear()
        self.reconnected = 0


@dataclass
class Node:
    """A simulated node. `number` is unique; `port` is the same for all nodes."""

    number: int
    port: int
    queen_port: int
    token: str
    observed: NodeObservations

    @property
    def node_id(self) -> str:
        return f"node-{self.number}"

    async def register(self, wire: Wire) -> None:
        """Register. Raises AssertionError if queen-rbee refuses."""
        high, low = divmod(self.number + 1, 250)
        registration = NodeRegistration(
            node_id=self.node_id,
            machine_id=f"{self.number + 1:032x}",
            address=f"http://127.1.{high}.{low + 1}:{self.port}",
            pools=[f"pool-{number}" for number in range(POOLS)],
            version=VERSION,
            heartbeat_interval_ms=INTERVAL_MS,
        )
        answer = await wire.ask(self._post("register", registration.model_dump_json().encode()))
        assert answer.status == 200, f"{self.node_id} was refused: {answer.body!r}"

    async def live(self, limiter: trio.CapacityLimiter, *, task_status: trio.TaskStatus[None]) -> None:
        """Register and send heartbeats forever."""
        async with limiter:
            with await Wire.open(self.queen_port) as wire:
                await self.register(wire)
                wait_s = await self._beat(wire)
        task_status.started()
        while True:
            with suppress(Broken), await Wire.open(self.queen_port) as wire:
                while True:
                    await trio.sleep(wait_s)
                    wait_s = await self._beat(wire)
            self.observed.reconnected += 1
            wait_s = 0.0

    async def _beat(self, wire: Wire) -> float:
        """Send a heartbeat and return the seconds until the next one."""
        request = self._post(f"{self.node_id}/heartbeat", self._heartbeat())
        begun = trio.current_time()
        answer = await wire.ask(request)
        self.observed.beats.append(trio.current_time() - begun)
        self.observed.statuses[answer.status] = self.observed.statuses.get(answer.status, 0) + 1
        return await self._after(answer, wire)

    async def _after(self, answer: Answer, wire: Wire) -> float:
        if answer.status == 404:
            await self.register(wire)
            return 0.0
        if answer.status != 200:
            return INTERVAL_MS / 1000
        return HeartbeatAnswer.model_validate_json(answer.body).next_heartbeat_ms / 1000

    def _heartbeat(self) -> bytes:
        pools = [self._snapshot(f"pool-{number}", model) for number, model in enumerate(models())]
        return Heartbeat(timestamp=datetime.now(UTC), pools=pools).model_dump_json().encode()

    def _snapshot(self, pool_id: str, model: str) -> PoolSnapshot:
        """Return the state of a pool. The free memory changes each time, as on busy GPUs."""
        return PoolSnapshot(
            pool_id=pool_id,
            node_id=self.node_id,
            ready=True,
            draining=False,
            slots_free=SLOTS,
            slots_total=SLOTS,
            vram_free_bytes=random.randrange(8 * GIB, 16 * GIB),
            vram_total_bytes=80 * GIB,
            engine="llamacpp",
            engine_version="bench",
            models_available=[model],
            device_mask="0",
            ctx_max=32_768,
        )

    def _post(self, path: str, body: bytes) -> bytes:
        head = f"POST /v2/nodes/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.token}\r\n"
        return f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body

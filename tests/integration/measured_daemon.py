"""Serve the routes of a daemon in a process that measures its longest event loop delay and its peak memory.

`python -m tests.integration.measured_daemon queen-rbee ENGINE_URL` prints one line of JSON: its port, and the routes
that accept a body. GET /measured returns the measurements since the previous GET /measured.
"""

import json
import re
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import process_time

import trio
from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import Exchange, HotRoutes
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.serving import serve
from llama_orch.service.memory import release_after_start
from llama_orch.service.watchdog import Pulse
from pool_managerd.api.draining import DrainRoutes
from pool_managerd.api.pools import EngineRoutes
from pool_managerd.draining import Draining
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.relay.relay import Relay
from queen_rbee.api.routes import add_routes
from queen_rbee.parts import build
from queen_rbee.settings import QueenSettings
from tests.unit.pool_managerd.values import READY, found
from tests.unit.queen_rbee.memory_store import MemoryStore

WITHOUT_BODY = {"GET", "HEAD", "OPTIONS"}
ENDLESS = {("GET", "/v2/events")}
TURN_S = 0.001


@dataclass
class Measurements:
    """Measurements since the last reset."""

    longest_s: float = 0.0
    base_kib: int = 0

    async def watch(self) -> None:
        """Measure the longest time between two turns of the loop, as CPU time: other processes do not add to it."""
        last = process_time()
        while True:
            await trio.sleep(TURN_S)
            now = process_time()
            self.longest_s, last = max(self.longest_s, now - last), now

    def to_dict(self) -> dict[str, float]:
        return {"gap_ms": self.longest_s * 1000, "grown_kib": max(0, _memory("VmHWM") - self.base_kib)}

    def reset(self) -> None:
        release_after_start()
        Path("/proc/self/clear_refs").write_text("5")
        self.base_kib, self.longest_s = _memory("VmRSS"), 0.0


def _memory(name: str) -> int:
    """Return a field of /proc/self/status in KiB; see proc_pid_status(5)."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


@dataclass
class Served:
    """The app and routes of a daemon, and the loops that they need."""

    app: QuartTrio
    hot: HotRoutes
    loops: list[Callable[..., Awaitable[None]]] = field(default_factory=list)


def queen(engine_url: str) -> Served:
    """Build queen-rbee with an in-memory store and one pool, `p`."""
    directory = Path(tempfile.mkdtemp())
    parts = build(QueenSettings(runtime_dir=directory / "engines"), MemoryStore(), directory)
    parts.registry.synced = True
    replica = ReplicaStatus(replica_id="r0", url=engine_url, ready=True, slots_total=2, slots_free=2)
    pool = PoolStatus(
        pool_id="p", state=PoolState.READY, live=True, ready=True, draining=False, engine="llamacpp", replicas=[replica]
    )
    parts.registry.update("p", 0, [pool])
    app = create_app("queen-rbee", list, parts.metrics.registry)
    return Served(app, add_routes(app, parts), [partial(parts.dispatcher.run, Pulse("dispatcher", 60.0))])


def pool_manager(engine_url: str) -> Served:
    """Build pool-managerd with one engine in the pool `default`."""
    registry = NodePools()
    registry.take(found(port=int(engine_url.rpartition(":")[2])))
    for replica in registry.replicas:
        registry.apply_probe(replica.incarnation, READY)
    app, draining = create_app("pool-managerd", list, CollectorRegistry()), Draining(registry, Metrics(registry), "n")
    gate_routes = HotRoutes()
    mount(app, gate_routes, EngineRoutes(Relay(registry)), DrainRoutes(registry, draining))
    return Served(app, gate_routes, [draining.run])


DAEMONS = {"queen-rbee": queen, "pool-managerd": pool_manager}


def routes(served: Served) -> list[tuple[str, str]]:
    """Return method and path of each route that accepts a body, and of all routes on the hot path."""
    quart_routes = [
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in served.app.url_map.iter_rules()
        for method in sorted((rule.methods or set()) - WITHOUT_BODY)
    ]
    hot_routes = [("POST" if method == "ANY" else method, path) for method, path in served.hot.declared]
    return sorted({*quart_routes, *hot_routes} - ENDLESS)


async def main(name: str, engine_url: str) -> None:
    served, measurements = DAEMONS[name](engine_url), Measurements()

    async def send_measurements(exchange: Exchange) -> None:
        await exchange.send_json(200, measurements.to_dict())
        measurements.reset()

    route_list = routes(served)
    served.hot.add("GET", "/measured", send_measurements)
    sock = socket.create_server(("127.0.0.1", 0))
    async with trio.open_nursery() as nursery:
        for loop in served.loops:
            await nursery.start(loop)
        gate = Gate(served.app, Access(), served.hot)
        await nursery.start(partial(serve, gate, [sock], shutdown=trio.Event(), drain_s=0.0))
        nursery.start_soon(measurements.watch)
        sys.stdout.write(json.dumps({"port": sock.getsockname()[1], "routes": route_list}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])

"""pool-managerd's API and relay over real sockets, with a fake engine."""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import trio
from prometheus_client import CollectorRegistry

from llama_orch.contracts.engines import Workload
from llama_orch.engines.connections import engine_connections
from llama_orch.http.client.client import Response, request
from llama_orch.http.client.idle_connections import IdleConnections
from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import HotRoutes
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.serving import serve
from llama_orch.settings.types import Secret
from pool_managerd.api.draining import DrainRoutes
from pool_managerd.api.pools import EngineRoutes
from pool_managerd.draining import Draining
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.relay.relay import Relay
from pool_managerd.relay.rules import Allow
from tests.unit.pool_managerd.odd_engine import OddEngine, odd_engine
from tests.unit.pool_managerd.values import READY, found

TOKEN = "0123456789abcdef0123"
LIMIT_S = 10.0


@dataclass
class RelaySite:
    """A relay at `port` to the one engine of pool `default`; `stop` ends the server."""

    engine: OddEngine
    registry: NodePools
    port: int
    connections: IdleConnections
    """The relay's idle connections to the engine."""
    stop: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)

    def ask(
        self, path: str, method: str = "POST", pool: str = "default", body: bytes = b"{}", **headers: str
    ) -> AbstractAsyncContextManager[Response]:
        """Make a request for `path` at the engine, as the queen does."""
        given = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.port}/v2/pools/{pool}/engine/{path}"
        return request(method, url, headers=given, body=body, connect_s=LIMIT_S, head_s=LIMIT_S)

    async def raw(self, text: str) -> trio.SocketStream:
        """Open a connection and send `text`."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(text.replace("\n", "\r\n").encode())
        return stream

    async def exchange(self, text: str) -> bytes:
        """Send `text`; return everything up to the end of the connection."""
        async with await self.raw(text.replace("Host", "Connection: close\nHost")) as stream:
            return b"".join([data async for data in stream])

    async def post(self, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        """POST to the daemon itself; return status and JSON."""
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with request("POST", f"http://127.0.0.1:{self.port}{path}", headers=headers, body=body) as answer:
            return answer.status, json.loads(await answer.read())

    async def end(self) -> None:
        """Stop the server; return after its last log message."""
        self.stop.set()
        await self.ended.wait()

    def get(self, path: str) -> str:
        """Return the text of a request for `path` at the engine."""
        return f"GET /v2/pools/default/engine/{path} HTTP/1.1\nHost: localhost\nAuthorization: Bearer {TOKEN}\n\n"


def ready_registry(*ports: int) -> NodePools:
    """Return a pool `default` with ready engines on `ports`."""
    registry = NodePools()
    for number, port in enumerate(ports):
        registry.take(found(replica_id=f"r{number}", port=port))
    for replica in registry.replicas:
        registry.apply_probe(replica.incarnation, READY)
    return registry


async def _serve(
    site: RelaySite, gate: Gate, sock: socket.socket, drain_s: float, task_status: trio.TaskStatus[None]
) -> None:
    await serve(gate, [sock], shutdown=site.stop, drain_s=drain_s, task_status=task_status)
    site.ended.set()


def anything(_engine: str, _method: str, _target: str) -> Workload | None:
    """An allow-list that passes everything: in these tests the path tells the fake engine what to do."""
    return "completion"


@asynccontextmanager
async def relay_site(drain_s: float = 0.0, allows: Allow = anything) -> AsyncIterator[RelaySite]:
    """Run a site; at the end, running requests are aborted after `drain_s` seconds."""
    async with odd_engine() as engine, engine_connections() as connections, trio.open_nursery() as nursery:
        registry = ready_registry(engine.port)
        sock = socket.create_server(("127.0.0.1", 0))
        site = RelaySite(engine, registry, sock.getsockname()[1], connections)
        draining = Draining(registry, Metrics(registry), "gpu-1")
        await nursery.start(draining.run)
        gate_routes, app = HotRoutes(), create_app("test", list, CollectorRegistry())
        mount(
            app, gate_routes, EngineRoutes(Relay(registry, connections, allows=allows)), DrainRoutes(registry, draining)
        )
        gate = Gate(app, Access(Secret(TOKEN)), gate_routes)
        await nursery.start(partial(_serve, site, gate, sock, drain_s))
        yield site
        await site.end()
        nursery.cancel_scope.cancel()

"""A /v1 client without a network: it talks to the real gate and routes as an ASGI server does."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from pydantic import JsonValue

from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import HotRoutes, Message
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.mounting import mount
from queen_rbee.api.ollama.routes import OllamaRoutes
from queen_rbee.api.task_listing import TaskListingRoutes
from queen_rbee.api.tasks import TaskRoutes
from queen_rbee.api.usage import UsageRoutes
from queen_rbee.api.v1.anthropic import AnthropicRoutes
from queen_rbee.api.v1.engine_relay import EngineRelay
from queen_rbee.api.v1.models import ModelRoutes
from queen_rbee.api.v1.openai import OpenAiRoutes
from queen_rbee.api.v1.openai_responses import ResponsesRoutes
from queen_rbee.pools.model_lookup import ModelTarget
from queen_rbee.response_store import ResponseStore
from tests.unit.queen_rbee.queen_core import TIMEOUT_S, QueenCore, build_queen
from tests.unit.queen_rbee.scripted_openai import ScriptedOpenAi, scripted_openai

CHAT = "/v1/chat/completions"


@dataclass
class V1Exchange:
    """One request and the response so far. Set `disconnect` to make the client leave."""

    request: bytes
    disconnect: trio.Event = field(default_factory=trio.Event)
    finished: trio.Event = field(default_factory=trio.Event)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    _progress: trio.Event = field(default_factory=trio.Event)
    _received: bool = False

    async def receive(self) -> Message:
        if not self._received:
            self._received = True
            await trio.lowlevel.checkpoint()
            return {"type": "http.request", "body": self.request, "more_body": False}
        await self.disconnect.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]
        self._progress.set()
        self._progress = trio.Event()

    async def wait_for(self, text: bytes) -> None:
        """Return once `text` is in the body."""
        with trio.fail_after(TIMEOUT_S):
            while text not in self.body:
                await self._progress.wait()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        """OpenAI's error object."""
        return self.json["error"]

    @property
    def chunks(self):
        """The parsed events of a stream; `[DONE]` is left as it is."""
        data = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [item if item == "[DONE]" else json.loads(item) for item in data]


@dataclass
class ImitatedLoads:
    """Notes the loads and unloads that requests without a prompt ask for. They wait for `loadable`."""

    asked: list[tuple[str, str | None, float | None]] = field(default_factory=list)
    loadable: trio.Event = field(default_factory=trio.Event)
    cancelled: trio.Event = field(default_factory=trio.Event)

    async def load(self, target: ModelTarget, keep_alive: float | None) -> None:
        self.asked.append(("load", target.model_ref, keep_alive))
        try:
            await self.loadable.wait()
        except trio.Cancelled:
            self.cancelled.set()
            raise

    def unload(self, target: ModelTarget) -> None:
        self.asked.append(("unload", target.model_ref, None))


@dataclass
class V1Server:
    """A running queen behind its gate."""

    queen: QueenCore
    engine: ScriptedOpenAi
    nursery: trio.Nursery
    gate: Gate
    loads: ImitatedLoads = field(default_factory=ImitatedLoads)

    async def ask(self, path: str = CHAT, body: object = None, method: str = "POST", **headers: str) -> V1Exchange:
        """Return the finished exchange."""
        exchange = self.start(path, body, method, **headers)
        with trio.fail_after(TIMEOUT_S):
            await exchange.finished.wait()
        return exchange

    def start(self, path: str = CHAT, body: object = None, method: str = "POST", **headers: str) -> V1Exchange:
        """Start an exchange. Underscores in the names of `headers` become hyphens."""
        exchange = V1Exchange(body if isinstance(body, bytes) else json.dumps(body).encode())
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.nursery.start_soon(self._exchange, exchange, method, path, fields)
        return exchange

    async def _exchange(self, exchange: V1Exchange, method: str, path: str, headers: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        path, _, query = path.partition("?")
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
        scope |= {"query_string": query.encode()}
        raw = [(b"host", b"localhost"), *raw]
        scope |= {"http_version": "1.1", "scheme": "http", "headers": raw, "client": ("127.0.0.1", 1), "root_path": ""}
        await self.gate({**scope, "server": ("127.0.0.1", 1), "asgi": {}}, exchange.receive, exchange.send)
        exchange.finished.set()


def chat_body(prompt: str = "hello", **fields: JsonValue) -> dict[str, JsonValue]:
    return {"messages": [{"role": "user", "content": prompt}], **fields}


@asynccontextmanager
async def v1_server(**options) -> AsyncIterator[V1Server]:
    """Run a queen with one scripted OpenAI engine: pool `p` with two slots, which serves `tiny`."""
    async with scripted_openai() as engine, trio.open_nursery() as nursery:
        queen = build_queen(engine, **options)
        queen.pool(models_available=["hf:org/repo/tiny.gguf"])
        await nursery.start(queen.dispatcher.run, queen.pulse)
        loads = ImitatedLoads()
        yield V1Server(queen, engine, nursery, build_gate(queen, loads=loads), loads)
        nursery.cancel_scope.cancel()


def build_gate(
    queen: QueenCore,
    access: Access | None = None,
    store: ResponseStore | None = None,
    loads: ImitatedLoads | None = None,
) -> Gate:
    """Return a gate in front of the task routes, all of /v1, and what engines answer of /api.

    Without `store`, responses are not stored.
    """
    app, routes = create_app("test", list, queen.metrics.registry), HotRoutes()
    relay = EngineRelay(queen.intake, queen.dispatcher, queen.queue, queen.registry)
    mount(
        app,
        routes,
        TaskRoutes(queen.intake, queen.dispatcher, queen.queue, queen.book, queen.sessions),
        OpenAiRoutes(relay, queen.catalog),
        ResponsesRoutes(relay, queen.catalog, store or ResponseStore(0, 3600)),
        AnthropicRoutes(relay, queen.catalog),
        OllamaRoutes(relay, queen.catalog, loads or ImitatedLoads()),
        ModelRoutes(queen.registry, queen.catalog),
        TaskListingRoutes(queen.book, queen.intake, queen.store),
        UsageRoutes(queen.parts.keys),
    )
    return Gate(app, access or Access(), routes, keys=queen.parts.keys)

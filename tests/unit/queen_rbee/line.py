"""A client's end of one HTTP exchange with the queen's /v1, without a network: the gate and the routes are real."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
from pydantic import JsonValue

from llama_orch.http.server.app import create_app
from llama_orch.http.server.exchange import HotRoutes, Message
from llama_orch.http.server.gate import Access, Gate
from llama_orch.http.server.mounting import mount
from queen_rbee.api.tasks import TaskRoutes
from queen_rbee.api.v1.anthropic import AnthropicRoutes
from queen_rbee.api.v1.engine_relay import EngineRelay
from queen_rbee.api.v1.models import ModelRoutes
from queen_rbee.api.v1.openai import OpenAiRoutes
from tests.unit.queen_rbee.core import SOON_S, Queen, core
from tests.unit.queen_rbee.scripted_openai import ScriptedOpenAi, scripted_openai

CHAT = "/v1/chat/completions"


@dataclass
class Line:
    """What has been answered so far. `left` is set by a client that leaves."""

    request: bytes
    left: trio.Event = field(default_factory=trio.Event)
    ended: trio.Event = field(default_factory=trio.Event)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    more: trio.Event = field(default_factory=trio.Event)
    _asked: bool = False

    async def receive(self) -> Message:
        """The server reads."""
        if not self._asked:
            self._asked = True
            await trio.lowlevel.checkpoint()
            return {"type": "http.request", "body": self.request, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """The server writes; the client may have left, as in life."""
        await trio.lowlevel.checkpoint()
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message["body"]
        self.more.set()
        self.more = trio.Event()

    async def until(self, mark: bytes) -> None:
        """Return once `mark` has come."""
        with trio.fail_after(SOON_S):
            while mark not in self.body:
                await self.more.wait()

    @property
    def json(self):
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def error(self):
        """OpenAI's error object."""
        return self.json["error"]

    @property
    def chunks(self):
        """The events of a stream, parsed; its end mark as it is."""
        data = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [item if item == "[DONE]" else json.loads(item) for item in data]


@dataclass
class Site:
    """A queen that runs, and its ASGI application."""

    queen: Queen
    engine: ScriptedOpenAi
    nursery: trio.Nursery
    gate: Gate

    async def ask(self, path: str = CHAT, body: object = None, method: str = "POST", **headers: str) -> Line:
        """One exchange from its beginning to its end."""
        line = self.dial(path, body, method, **headers)
        with trio.fail_after(SOON_S):
            await line.ended.wait()
        return line

    def dial(self, path: str = CHAT, body: object = None, method: str = "POST", **headers: str) -> Line:
        """One exchange that has begun; the words of `headers` are joined by hyphens."""
        line = Line(body if isinstance(body, bytes) else json.dumps(body).encode())
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.nursery.start_soon(self._exchange, line, method, path, fields)
        return line

    async def _exchange(self, line: Line, method: str, path: str, headers: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        path, _, query = path.partition("?")
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode()}
        scope |= {"query_string": query.encode()}
        raw = [(b"host", b"localhost"), *raw]
        scope |= {"http_version": "1.1", "scheme": "http", "headers": raw, "client": ("127.0.0.1", 1), "root_path": ""}
        await self.gate({**scope, "server": ("127.0.0.1", 1), "asgi": {}}, line.receive, line.send)
        line.ended.set()


def said(words: str = "hello", **fields: JsonValue) -> dict[str, JsonValue]:
    """The body of a chat in which the user says `words`."""
    return {"messages": [{"role": "user", "content": words}], **fields}


@asynccontextmanager
async def site(**options) -> AsyncIterator[Site]:
    """/v1 over one engine that speaks OpenAI's endpoints, in a pool `p` of two slots that serves `tiny`."""
    async with scripted_openai() as engine, trio.open_nursery() as nursery:
        queen = core(engine, **options)
        queen.pool(models_available=["hf:org/repo/tiny.gguf"])
        await nursery.start(queen.dispatcher.run, queen.pulse)
        yield Site(queen, engine, nursery, gate_of(queen))
        nursery.cancel_scope.cancel()


def gate_of(queen: Queen, access: Access | None = None) -> Gate:
    """Tasks and all of /v1, behind the gate."""
    app, routes = create_app("test", list, queen.dispatcher.metrics.registry), HotRoutes()
    catalog = queen.dispatcher.accounting.catalog
    relay = EngineRelay(queen.dispatcher, queen.intake)
    mount(
        app,
        routes,
        TaskRoutes(queen.dispatcher, queen.intake),
        OpenAiRoutes(relay, catalog),
        AnthropicRoutes(relay, catalog),
        ModelRoutes(queen.dispatcher.registry, catalog),
    )
    return Gate(app, access or Access(), routes)

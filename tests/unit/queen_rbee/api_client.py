"""A client of the Quart routes, over a store in memory. No loop runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quart_trio import QuartTrio

from llama_orch.http.server.app import create_app
from queen_rbee.api.routes import add_routes
from queen_rbee.parts import Parts, build
from queen_rbee.settings import QueenSettings
from queen_rbee.store.protocol import StoreFailure
from tests.unit.queen_rbee.memory_store import MemoryStore

FULL = StoreFailure("the disk is full", "Make room.")


@dataclass(frozen=True)
class ApiAnswer:
    """`json` is None for an empty body."""

    status: int
    json: Any
    headers: Mapping[str, str]

    @property
    def fields(self) -> list[str]:
        """The invalid fields of a 400."""
        assert self.status == 400, self.json
        return [problem["field"] for problem in self.json["fields"]]


@dataclass(frozen=True)
class ApiClient:
    parts: Parts
    store: MemoryStore
    app: QuartTrio

    async def ask(self, method: str, path: str, body: object = None, *, raw: bytes | None = None) -> ApiAnswer:
        """Send one request. `body` is sent as JSON, `raw` unchanged."""
        content = {"data": raw} if raw is not None else {} if body is None else {"json": body}
        response = await self.app.test_client().open(path, method=method, **content)
        data = await response.get_data(as_text=True)
        return ApiAnswer(
            response.status_code, await response.get_json(force=True) if data else None, dict(response.headers)
        )


def api_client(directory: Path, store: MemoryStore | None = None) -> ApiClient:
    """Return a client of a queen that has just started with `store`."""
    store = store or MemoryStore()
    parts = build(QueenSettings(runtime_dir=directory / "engines"), store, directory)
    app = create_app("queen-rbee", list, parts.metrics.registry)
    add_routes(app, parts)
    return ApiClient(parts, store, app)

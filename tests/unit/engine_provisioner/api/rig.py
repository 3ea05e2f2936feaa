"""The API of engine-provisioner in this process, with a model source that the test controls."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import trio
from prometheus_client import CollectorRegistry
from quart_trio import QuartTrio

from engine_provisioner.api.reloading import Reloading
from engine_provisioner.api.routes import add_routes
from engine_provisioner.cache.model_cache import ModelCache
from engine_provisioner.engine import LocalModel
from engine_provisioner.fetch.progress import FetchProgress
from engine_provisioner.operations import Operations
from engine_provisioner.pulls import OnProgress, Pulls, uses_of
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.sources.source import ModelRequest
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.replacements import PoolsSource, Replacements
from engine_provisioner.supervise.pool_set import PoolSet
from engine_provisioner.supervise.purge import Purges
from engine_provisioner.supervise.reloads import Reloads
from llama_orch.http.server.app import create_app
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.reloading import ConfigurationRoutes
from tests.unit.engine_provisioner.fetching import context


@dataclass
class ControlledSource:
    """Stores `content` in two halves, the second once `go_on` is set, and records it."""

    cache: ModelCache
    path: Path
    content: bytes = b""
    go_on: trio.Event = field(default_factory=trio.Event)
    asked: list[ModelRequest] = field(default_factory=list)

    async def __call__(self, request: ModelRequest, on_progress: OnProgress) -> LocalModel:
        self.asked.append(request)
        size = len(self.content)
        await self.cache.make_room(size, self.path.parent)
        await on_progress(FetchProgress(size // 2, size))
        await self.go_on.wait()
        await on_progress(FetchProgress(size, size))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(self.content)
        found = LocalModel(request.ref, self.path, len(self.content))
        await self.cache.used(request.ref, found)
        return found


@dataclass
class Rig:
    """The parts of one API."""

    app: QuartTrio
    cache: ModelCache
    operations: Operations
    source: ControlledSource


@asynccontextmanager
async def rig(
    cache_dir: Path, *pools: Pool, limit_bytes: int | None = None, content: bytes = b""
) -> AsyncIterator[Rig]:
    """Run the API for the duration of the block."""
    cache = ModelCache(cache_dir, limit_bytes, lambda: uses_of(pools, context(cache_dir)))
    operations = Operations()
    source = ControlledSource(cache, cache_dir / "models" / "k" / "m.gguf", content)
    app = create_app("engine-provisioner", list, CollectorRegistry())
    mount(app, None, ConfigurationRoutes(cast(Any, None)))
    pulls = Pulls(source, operations, lambda: pools)
    files = PoolsSource(cache_dir, Replacements(cache_dir))
    absent = cast(PoolSet, None), cast(PoolReports, None), Reloads(files, *cast(Any, (None,) * 3))
    reloading = Reloading(absent[0], files, cache, cast(Purges, None))
    add_routes(app, *absent, cache, pulls, operations, reloading, cast(Any, None), limit_bytes=limit_bytes)
    async with trio.open_nursery() as nursery:
        await nursery.start(operations.run)
        yield Rig(app, cache, operations, source)
        nursery.cancel_scope.cancel()

"""Pulls: models that are fetched because somebody asked for them, not because a pool needs them."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine_provisioner.cache.records import ModelUse
from engine_provisioner.engine import LocalModel
from engine_provisioner.fetch.progress import FetchProgress, size_text
from engine_provisioner.operations import Operation, Operations
from engine_provisioner.sources import file, https
from engine_provisioner.sources.model_fetcher import ModelFetcher, Watch
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.sources.source import ModelRequest, SourceContext
from engine_provisioner.spec.pool_spec import Model, Pool

KIND = "pull"

OnProgress = Callable[[FetchProgress], Awaitable[None]]


class ModelSource(Protocol):
    """Where a pull gets a model from."""

    async def __call__(self, request: ModelRequest, on_progress: OnProgress) -> LocalModel:
        """Fetch a model, or find it on disk. Raises ProvisioningFailure."""


@dataclass(frozen=True)
class Pulls:
    """Starts pulls. A model that a pool in `pools` uses is fetched as the pool would, with its checksum."""

    source: ModelSource
    operations: Operations
    pools: Callable[[], Sequence[Pool]]

    def start(self, model: Model) -> Operation:
        """Start to pull `model`, or return the pull of it that runs. Raises TooManyOperations."""
        user = next((pool for pool in self.pools() if pool.model and pool.model.ref == model.ref), None)
        request = request_of(user) if user else ModelRequest(model.ref, model.checksum)

        async def work(operation: Operation) -> None:
            await self._pull(request, operation)

        return self.operations.start(KIND, model_name(model.ref), work, key=model.ref)

    async def _pull(self, request: ModelRequest, operation: Operation) -> None:
        async def on_progress(progress: FetchProgress) -> None:
            operation.detail = "downloading"
            operation.advance(progress.bytes_done, progress.bytes_total)

        operation.detail = "looking for the model"
        found = await self.source(request, on_progress)
        operation.advance(found.size_bytes, found.size_bytes)
        operation.detail = f"{size_text(found.size_bytes)} in {found.path}"


def source_of(fetcher: ModelFetcher) -> ModelSource:
    """Return the sources of `fetcher`."""

    async def obtain(request: ModelRequest, on_progress: OnProgress) -> LocalModel:
        return await fetcher.obtain(request, Watch(on_progress=on_progress))

    return obtain


def request_of(pool: Pool) -> ModelRequest:
    """Return the request for the model of `pool`, which has one."""
    model = pool.model
    assert model
    directory = Path(model.cache_dir) if model.cache_dir else None
    return ModelRequest(model.ref, model.checksum, directory, pool.quant)


def uses_of(pools: Sequence[Pool], context: SourceContext) -> list[ModelUse]:
    """Return the models that `pools` use, with their paths where these follow from the reference."""
    found = []
    for pool in pools:
        if pool.model is None:
            continue
        path = None
        if pool.model.ref.startswith("file:"):
            path = file.local_path(pool.model.ref)
        elif pool.model.ref.startswith(("https://", "http://")):
            path = https.stored_at(request_of(pool), context)
        found.append(ModelUse(pool.id, pool.model.ref, path))
    return found

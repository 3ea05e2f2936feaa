"""Pulls: models that are fetched because somebody asked for them, not because a pool needs them."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

from engine_provisioner.acquire.acquirer import Acquirer, stored_at
from engine_provisioner.acquire.file_model import local_path
from engine_provisioner.cache.model_cache import ModelCache, describe_size
from engine_provisioner.cache.records import ModelUse
from engine_provisioner.engine import LocalModel
from engine_provisioner.operations import Operation, Operations
from engine_provisioner.spec.model_name import model_name
from engine_provisioner.spec.pool_spec import Model, Pool

KIND = "pull"

OnBytes = Callable[[int, int | None], Awaitable[None]]
"""Called with the number of bytes so far, and the total if it is known; may raise ProvisioningFailure."""


class ModelSource(Protocol):
    """Where a pull gets a model from."""

    async def __call__(self, model: Model, on_bytes: OnBytes) -> LocalModel:
        """Fetch `model`, or find it on disk; the caller records it. Raises ProvisioningFailure."""


class Pulls:
    """Starts pulls. A model that a pool in `pools` uses is fetched as the pool would, with its checksum."""

    def __init__(
        self,
        source: ModelSource,
        cache: ModelCache,
        operations: Operations,
        pools: Callable[[], Sequence[Pool]],
        cache_dir: Path,
    ) -> None:
        self._source = source
        self._cache = cache
        self._operations = operations
        self._pools = pools
        self._cache_dir = cache_dir

    def start(self, model: Model) -> Operation:
        """Start to pull `model`, or return the pull of it that runs. Raises TooManyOperations."""
        configured = next((pool.model for pool in self._pools() if pool.model and pool.model.ref == model.ref), model)

        async def work(operation: Operation) -> None:
            await self._pull(configured, operation)

        return self._operations.start(KIND, model_name(model.ref), work, key=model.ref)

    async def _pull(self, model: Model, operation: Operation) -> None:
        room_made = False

        async def on_bytes(bytes_done: int, bytes_total: int | None) -> None:
            nonlocal room_made
            if not room_made and bytes_total is not None:
                room_made = True
                directory = stored_at(model, self._cache_dir).parent
                await self._cache.make_room(bytes_total - bytes_done, directory)
            operation.detail = "downloading"
            operation.advance(bytes_done, bytes_total)

        operation.detail = "looking for the model"
        found = await self._source(model, on_bytes)
        operation.advance(found.size_bytes, found.size_bytes)
        operation.detail = f"{describe_size(found.size_bytes)} in {found.path}"


def source_of(acquirer: Acquirer) -> ModelSource:
    """Return a source for https: and file: models."""
    return acquirer.pull


def uses_of(pools: Sequence[Pool], cache_dir: Path) -> list[ModelUse]:
    """Return the models that `pools` use, with their paths where these follow from the reference."""
    found = []
    for pool in pools:
        if pool.model is None:
            continue
        path = None
        if pool.model.ref.startswith("file:"):
            path = local_path(pool.model.ref)
        elif pool.model.ref.startswith(("https://", "http://")):
            path = stored_at(pool.model, cache_dir)
        found.append(ModelUse(pool.id, pool.model.ref, path))
    return found

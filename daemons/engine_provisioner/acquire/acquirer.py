"""Getting what a pool needs onto this machine: its engine and its model, each by its own way."""

import hashlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import trio

from engine_provisioner.acquire import downloads, file_model
from engine_provisioner.acquire.downloads import Download
from engine_provisioner.acquire.single_flight import SingleFlight
from engine_provisioner.engine import LocalModel, Program
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes.mode import Workspace
from engine_provisioner.spec.model_name import model_name
from engine_provisioner.spec.pool_spec import Model, Pool
from engine_provisioner.spec.reachability import UnixUser
from engine_provisioner.step_deadline import DISK_STEP_S, StepDeadline
from llama_orch.engines import KINDS

Tell = Callable[[str], Awaitable[None]]
"""Says how far it is, for people."""

Fetched = Callable[[str, int], None]
"""Counts the bytes that were fetched for a pool."""

TELL_EVERY_S = 2.0


class Acquirer:
    """Fetches into `cache_dir`, an absolute path. Serves all pools; what two of them want is fetched once."""

    def __init__(self, cache_dir: Path, fetched: Fetched = lambda _pool_id, _count: None) -> None:
        self._cache_dir = cache_dir
        self._fetched = fetched
        self._flights = SingleFlight()

    async def check_here(self, pool: Pool, deadline: StepDeadline, engine_user: Callable[[], UnixUser | None]) -> None:
        """Raise ProvisioningFailure where the pool names a file of this machine as its model, and that cannot be used:
        to be asked before anything is fetched."""
        if pool.model and pool.model.ref.startswith("file:"):
            deadline.expect(DISK_STEP_S, "looking at the model")
            path = file_model.local_path(pool.model.ref)
            await trio.to_thread.run_sync(lambda: file_model.check_readable(path, engine_user()))
            await trio.to_thread.run_sync(file_model.check_gguf, path)

    async def program(self, pool: Pool, deadline: StepDeadline, tell: Tell) -> Program:
        """The engine's program. Raises ProvisioningFailure."""
        how = pool.provisioning
        if KINDS[pool.engine].launch is None:
            what = f"engine {pool.engine} cannot be started by engine-provisioner, only watched in mode external"
            ours = " or ".join(kind.name for kind in KINDS.values() if kind.launch)
            raise ProvisioningFailure(what, f"Run it yourself and set its url, or use {ours}.", Retry.NEVER)
        deadline.rest("waiting for another pool that fetches the same engine")
        async with self._flights.hold(how.engine_key):
            fetch = partial(self._fetch, pool, deadline, tell)
            return await how.obtain(Workspace(self._cache_dir, deadline, tell, fetch))

    async def model(self, pool: Pool, deadline: StepDeadline, tell: Tell) -> LocalModel:
        """The model's file, checked. Raises ProvisioningFailure."""
        model = pool.model
        if model is None:
            raise ProvisioningFailure("the pool names no model", "Add the key model.", Retry.NEVER)
        if model.ref.startswith("file:"):
            return await self._checked(model, file_model.local_path(model.ref), deadline)
        if not model.ref.startswith(("https://", "http://")):
            raise _later(f"models from {model.ref.partition(':')[0]}:", "Fetch the file yourself, name it as file:/…")
        path = stored_at(model, self._cache_dir)
        deadline.rest("waiting for another pool that fetches the same model")
        async with self._flights.hold(str(path)):
            if not await trio.Path(path).exists():
                await self._fetch(pool, deadline, tell, model.ref, path, model.checksum)
            try:
                return await self._checked(model, path, deadline)
            except ProvisioningFailure as failure:  # fetched again rather than found bad for ever
                await trio.Path(path).unlink(missing_ok=True)
                raise ProvisioningFailure(failure.message, failure.hint, Retry.REFETCH) from failure

    async def _checked(self, model: Model, path: Path, deadline: StepDeadline) -> LocalModel:
        on_block = partial(deadline.expect, DISK_STEP_S, "checking the model")
        on_block()
        check = partial(file_model.verified, model, model_name(model.ref), path, self._cache_dir, on_block)
        return await trio.to_thread.run_sync(check)

    async def _fetch(
        self, pool: Pool, deadline: StepDeadline, tell: Tell, url: str, target: Path, checksum: str | None
    ) -> None:
        idle_s = pool.timeouts.idle_ms / 1000
        last_told = -TELL_EVERY_S
        before: int | None = None

        async def on_bytes(there: int, total: int | None) -> None:
            nonlocal last_told, before
            if before is not None and there > before:
                self._fetched(pool.id, there - before)
            before = there
            deadline.expect(idle_s + DISK_STEP_S, "downloading")
            if trio.current_time() - last_told >= TELL_EVERY_S:
                last_told = trio.current_time()
                await tell(f"downloading {model_name(url)}: {downloads.describe_progress(there, total)}")

        deadline.expect(downloads.CONNECT_S + idle_s + DISK_STEP_S, "downloading")
        await downloads.fetch(Download(url, target, checksum, idle_s), on_bytes)


def stored_at(model: Model, cache_dir: Path) -> Path:
    """Where a fetched model is kept: under its checksum, or under its address where it has none."""
    base = Path(model.cache_dir) if model.cache_dir else cache_dir / "models"
    key = model.checksum.removeprefix("sha256:") if model.checksum else hashlib.sha256(model.ref.encode()).hexdigest()
    name = PurePosixPath(unquote(urlsplit(model.ref).path)).name.lstrip(".")[-128:] or "model.gguf"
    return base / key / name


def _later(what: str, instead: str) -> ProvisioningFailure:
    return ProvisioningFailure(f"{what} cannot be used yet in this release", f"{instead}.", Retry.NEVER)

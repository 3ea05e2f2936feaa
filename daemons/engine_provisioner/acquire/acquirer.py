"""Acquisition of a pool's engine and model, by provisioning mode and by the model's URL scheme."""

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
from engine_provisioner.modes.mode import Provide, Workspace, no_images
from engine_provisioner.spec.model_name import model_name
from engine_provisioner.spec.pool_spec import Model, Pool
from engine_provisioner.spec.reachability import UnixUser
from engine_provisioner.step_deadline import DISK_STEP_S, StepDeadline
from llama_orch.engines import KINDS
from llama_orch.engines.kind import Launch

ReportProgress = Callable[[str], Awaitable[None]]
"""Publishes a progress message."""

CountBytes = Callable[[str, int], None]
"""Counts the bytes that were downloaded for a pool."""

REPORT_INTERVAL_S = 2.0


class Acquirer:
    """Fetches engines and models into `cache_dir`, an absolute path. What several pools need is fetched once."""

    def __init__(self, cache_dir: Path, count_bytes: CountBytes = lambda _pool_id, _count: None) -> None:
        self._cache_dir = cache_dir
        self._count_bytes = count_bytes
        self._flights = SingleFlight()

    async def check_here(self, pool: Pool, deadline: StepDeadline, engine_user: Callable[[], UnixUser | None]) -> None:
        """Check a model that is a local file, before anything is fetched. Raises ProvisioningFailure."""
        if pool.model and pool.model.ref.startswith("file:"):
            deadline.expect(DISK_STEP_S, "checking the model file")
            path = file_model.local_path(pool.model.ref)
            await trio.to_thread.run_sync(lambda: file_model.check_readable(path, engine_user()))
            await trio.to_thread.run_sync(model_check(pool), path)

    async def program(
        self,
        pool: Pool,
        deadline: StepDeadline,
        report: ReportProgress,
        gpus: tuple[int, ...] = (),
        provide_image: Provide = no_images,
    ) -> Program:
        """Acquire the engine's program, which is for `gpus`, or for the CPU. Raises ProvisioningFailure."""
        provisioning = pool.provisioning
        launch = startable(pool)
        deadline.rest("waiting for another pool that fetches the same engine")
        async with self._flights.hold(provisioning.engine_key):
            fetch = partial(self._fetch, pool, deadline, report)
            entry = launch.container_entry
            workspace = Workspace(self._cache_dir, deadline, report, fetch, gpus, entry, provide_image)
            return await provisioning.obtain(workspace)

    async def model(self, pool: Pool, deadline: StepDeadline, report: ReportProgress) -> LocalModel:
        """Acquire and check the model's file. Raises ProvisioningFailure."""
        model = pool.model
        if model is None:
            raise ProvisioningFailure("the pool has no key model", "Add it.", Retry.NEVER)
        if model.ref.startswith("file:"):
            return await self._checked(model, file_model.local_path(model.ref), deadline, model_check(pool))
        if not model.ref.startswith(("https://", "http://")):
            raise _unsupported(
                f"models from {model.ref.partition(':')[0]}:", 'Download the file and set model = "file:/…"'
            )
        path = stored_at(model, self._cache_dir)
        deadline.rest("waiting for another pool that fetches the same model")
        async with self._flights.hold(str(path)):
            if not await trio.Path(path).exists():
                await self._fetch(pool, deadline, report, model.ref, path, model.checksum)
            try:
                return await self._checked(model, path, deadline, model_check(pool))
            except ProvisioningFailure as failure:  # the next attempt downloads it again
                await trio.Path(path).unlink(missing_ok=True)
                raise ProvisioningFailure(failure.message, failure.hint, Retry.REFETCH) from failure

    async def _checked(
        self, model: Model, path: Path, deadline: StepDeadline, check_file: file_model.CheckFile
    ) -> LocalModel:
        on_block = partial(deadline.expect, DISK_STEP_S, "checking the model")
        on_block()
        check = partial(file_model.verified, model, model_name(model.ref), path, self._cache_dir, on_block, check_file)
        return await trio.to_thread.run_sync(check)

    async def _fetch(
        self, pool: Pool, deadline: StepDeadline, report: ReportProgress, url: str, target: Path, checksum: str | None
    ) -> None:
        idle_s = pool.timeouts.idle_ms / 1000
        last_report_s = -REPORT_INTERVAL_S
        bytes_before: int | None = None

        async def on_bytes(bytes_now: int, total: int | None) -> None:
            nonlocal last_report_s, bytes_before
            if bytes_before is not None and bytes_now > bytes_before:
                self._count_bytes(pool.id, bytes_now - bytes_before)
            bytes_before = bytes_now
            deadline.expect(idle_s + DISK_STEP_S, "downloading")
            if trio.current_time() - last_report_s >= REPORT_INTERVAL_S:
                last_report_s = trio.current_time()
                await report(f"downloading {model_name(url)}: {downloads.describe_progress(bytes_now, total)}")

        deadline.expect(downloads.CONNECT_S + idle_s + DISK_STEP_S, "downloading")
        await downloads.fetch(Download(url, target, checksum, idle_s), on_bytes)


def startable(pool: Pool) -> Launch:
    """Return how the pool's kind of engine is started in its mode. Raises ProvisioningFailure if it is not."""
    kind, mode = pool.engine, pool.provisioning.mode
    launch = KINDS[kind].launch
    if launch is None:
        message = f"engine {kind} cannot be started by engine-provisioner, only watched in mode external"
        ours = " or ".join(each.name for each in KINDS.values() if each.launch)
        raise ProvisioningFailure(message, f"Run it yourself and set its url, or use {ours}.", Retry.NEVER)
    if launch.only_in_container and mode != "container":
        message = f"engine {kind} cannot be started by engine-provisioner in mode {mode}, only in mode container"
        raise ProvisioningFailure(message, "Use that, or run it yourself and use mode external.", Retry.NEVER)
    return launch


def model_check(pool: Pool) -> file_model.CheckFile:
    """Return the check of what the pool's engine can load."""
    launch = KINDS[pool.engine].launch
    return file_model.check_gguf if launch is None or launch.loads_gguf else file_model.check_any


def stored_at(model: Model, cache_dir: Path) -> Path:
    """Return the path of a downloaded model: by its checksum, or by a hash of its URL if it has none."""
    base = Path(model.cache_dir) if model.cache_dir else cache_dir / "models"
    key = model.checksum.removeprefix("sha256:") if model.checksum else hashlib.sha256(model.ref.encode()).hexdigest()
    name = PurePosixPath(unquote(urlsplit(model.ref).path)).name.lstrip(".")[-128:] or "model.gguf"
    return base / key / name


def _unsupported(feature: str, alternative: str) -> ProvisioningFailure:
    return ProvisioningFailure(f"{feature} cannot be used yet in this release", f"{alternative}.", Retry.NEVER)

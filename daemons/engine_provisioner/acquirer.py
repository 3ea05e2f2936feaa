"""Acquisition of a pool's engine and model, by provisioning mode and by model source."""

from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from engine_provisioner.engine import LocalModel, Program
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.fetch.progress import FetchProgress
from engine_provisioner.fetch.remote_file import RemoteFile
from engine_provisioner.fetch.single_flight import SingleFlight
from engine_provisioner.modes.mode import Provide, Workspace, no_images
from engine_provisioner.report.pool_reports import DOWNLOADING
from engine_provisioner.sources import file
from engine_provisioner.sources.model_fetcher import ModelFetcher, Watch
from engine_provisioner.sources.model_name import model_name
from engine_provisioner.sources.registry import source_of
from engine_provisioner.sources.source import ModelRequest
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.step_deadline import DISK_STEP_S, StepDeadline
from llama_orch.engines import KINDS
from llama_orch.engines.kind import Launch
from llama_orch.files.reachability import UnixUser

ReportProgress = Callable[[str], Awaitable[None]]
"""Publishes a progress message."""

CountBytes = Callable[[str, int], None]
"""Counts the bytes that were downloaded for a pool."""

REPORT_INTERVAL_S = 2.0


class Acquirer:
    """Fetches engines and models. What several pools need is fetched once."""

    def __init__(self, fetcher: ModelFetcher, count_bytes: CountBytes = lambda _pool_id, _count: None) -> None:
        self._fetcher = fetcher
        self._cache_dir = fetcher.context.cache_dir
        self._count_bytes = count_bytes
        self._flights = SingleFlight()
        self.progress: dict[str, FetchProgress] = {}
        """The downloads that run now, by pool."""

    async def check_here(self, pool: Pool, deadline: StepDeadline, engine_user: Callable[[], UnixUser | None]) -> None:
        """Check a model that is a local file, before anything is fetched. Raises ProvisioningFailure."""
        if pool.model and source_of(pool.model.ref).resolve is None:
            deadline.expect(DISK_STEP_S, "checking the model file")
            path = file.local_path(pool.model.ref)
            await trio.to_thread.run_sync(lambda: file.check_readable(path, engine_user()))
            await trio.to_thread.run_sync(file.check_gguf if loads_gguf(pool) else file.check_any, path)

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
            fetch = partial(self._fetch_engine, pool, deadline, report)
            entry = launch.container_entry
            workspace = Workspace(self._cache_dir, deadline, report, fetch, gpus, entry, provide_image)
            return await provisioning.obtain(workspace)

    async def model(self, pool: Pool, deadline: StepDeadline, report: ReportProgress) -> LocalModel:
        """Acquire and check the model's files. Raises ProvisioningFailure."""
        if pool.model is None:
            raise ProvisioningFailure("the pool has no key model", "Add it.", Retry.NEVER)
        directory = Path(pool.model.cache_dir) if pool.model.cache_dir else None
        request = ModelRequest(pool.model.ref, pool.model.checksum, directory, pool.quant, gguf=loads_gguf(pool))
        try:
            return await self._fetcher.obtain(request, self._watch(pool, deadline, report, request.ref))
        finally:
            self.progress.pop(pool.id, None)

    async def _fetch_engine(
        self, pool: Pool, deadline: StepDeadline, report: ReportProgress, url: str, target: Path, checksum: str | None
    ) -> None:
        shown, sha256 = model_name(url), checksum.removeprefix("sha256:") if checksum else None
        remote = RemoteFile(target.name, url, target, shown, target.parent.parent, "engine", sha256=sha256)
        try:
            await self._fetcher.fetch_file(remote, self._watch(pool, deadline, report, url))
        finally:
            self.progress.pop(pool.id, None)

    def _watch(self, pool: Pool, deadline: StepDeadline, report: ReportProgress, ref: str) -> Watch:
        last_report_s = -REPORT_INTERVAL_S

        async def on_progress(progress: FetchProgress) -> None:
            nonlocal last_report_s
            self.progress[pool.id] = progress
            if trio.current_time() - last_report_s >= REPORT_INTERVAL_S:
                last_report_s = trio.current_time()
                await report(f"{DOWNLOADING}{model_name(ref)}: {progress}")

        count = partial(self._count_bytes, pool.id)
        return Watch(pool.timeouts.idle_ms / 1000, deadline.expect, on_progress, count)


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


def loads_gguf(pool: Pool) -> bool:
    """Whether the pool's engine can load GGUF files only."""
    launch = KINDS[pool.engine].launch
    return launch is None or launch.loads_gguf

"""A pool whose engine this daemon starts: fetch, and while it is wanted start, announce, watch."""

import logging
from functools import partial
from typing import NoReturn

import trio

from engine_provisioner.engine import EngineCommand
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch import command, devices, ports
from engine_provisioner.launch.engine_output import EXIT_HINTS, exit_cause
from engine_provisioner.launch.launcher import RunningEngine
from engine_provisioner.memory.loads import Load
from engine_provisioner.memory.measuring import measure
from engine_provisioner.report.handoffs import Announcement
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.workloads import served
from engine_provisioner.step_deadline import DISK_STEP_S, StepDeadline
from engine_provisioner.supervise.health import LIMIT_S, describe
from engine_provisioner.supervise.health_waits import (
    UNHEALTHY_S,
    WATCH_S,
    is_alive,
    load_limit_s,
    until_healthy,
    until_silent,
    while_running,
)
from engine_provisioner.supervise.preparation import (
    Prepared,
    SharedResources,
    describe_load,
    load_key,
    prepare,
    span_attributes,
)
from engine_provisioner.supervise.wanted import Wanted
from llama_orch.service.memory import release_after_start
from llama_orch.telemetry import correlation
from llama_orch.telemetry.tracing.spans import step

log = logging.getLogger("engine_provisioner.pool")


class ManagedPool:
    """Runs a pool with an engine of this daemon while it is wanted. `prepared`: for its first load."""

    def __init__(
        self,
        pool: Pool,
        shared: SharedResources,
        reporter: PoolReporter,
        deadline: StepDeadline,
        wanted: Wanted,
        prepared: Prepared | None = None,
    ) -> None:
        self._pool = pool
        self._shared = shared
        self._reporter = reporter
        self._deadline = deadline
        self._wanted = wanted
        self._staged = prepared
        self.prepared = prepared
        """The latest engine and model of the pool, None before they were obtained."""

    async def run(self) -> NoReturn:
        """Load and unload the engine as wanted. Ends only by ProvisioningFailure or OSError.

        Engine and model are checked before each load: files and GPUs may have gone since the last one.
        """
        if not (self._wanted.loaded or self._wanted.requests):
            self._wanted.loaded = await self._is_running()  # since an earlier run of the daemon
        detail = "fetching the engine and the model"
        while True:
            prepared, self._staged = self._staged, None
            if prepared is None:
                await self._reporter.provisioning(detail)
                prepared = await prepare(self._pool, self._shared, self._deadline, self._reporter.progress)
            self.prepared = prepared
            await self._describe(prepared)
            if self._wanted.loaded:
                await self._serve(prepared)
            elif await self._is_running():
                await self._shared.launcher.remove(self._pool.id)
            self._deadline.rest("unloaded, as wanted")
            await self._reporter.unloaded("engine and model are ready to be loaded")
            await self._wanted.until(True)
            correlation.current.set(self._wanted.correlation_id)
            detail = "checking the engine and the model"

    async def _is_running(self) -> bool:
        self._deadline.expect(DISK_STEP_S, "looking for a running engine")
        return await self._shared.launcher.held_port(self._pool.id) is not None

    async def _serve(self, prepared: Prepared) -> None:
        """Run the engine until the pool is no longer wanted, then stop it. Raises ProvisioningFailure."""
        started = await self._command(prepared)
        self._deadline.expect(DISK_STEP_S, "starting the engine")
        await self._reporter.starting("starting the engine")
        async with self._shared.launcher.run(self._pool.id, started, self._answers) as engine:
            try:
                await self._wanted.while_loaded(partial(self._run_engine, engine, prepared, started))
                self._deadline.expect(DISK_STEP_S, "withdrawing the engine")
                await self._reporter.unloading()
                await self._stop(engine)
            except* trio.Cancelled:  # by the end of the daemon, ordered or not, or by a reload
                if engine.unit is None:
                    with trio.CancelScope(shield=True):
                        await self._reporter.withdraw()
                        await self._reporter.offline("engine-provisioner has stopped, and its engine too")
                raise

    async def _run_engine(self, engine: RunningEngine, prepared: Prepared, started: EngineCommand) -> None:
        began_s = trio.current_time()
        with step("llama_orch.start", {**span_attributes(self._pool), "llama_orch.adopted": engine.adopted}, root=True):
            await self._wait_until_healthy(engine, prepared, started)
            took_s = trio.current_time() - began_s
            ctx = await self._announce(engine, prepared, started)
        correlation.current.set(None)  # what happens later has nothing to do with the request that loaded the pool
        await self._measure(engine, prepared, Load(took_s=None if engine.adopted else took_s, ctx_max=ctx))
        await self._watch(engine, prepared, started)

    async def _describe(self, prepared: Prepared) -> None:
        """Report what loading the pool takes."""
        self._deadline.expect(DISK_STEP_S, "reading what the last load took")
        await self._reporter.describe(await describe_load(self._pool, self._shared, prepared))

    async def _measure(self, engine: RunningEngine, prepared: Prepared, load: Load) -> None:
        """Measure the loaded engine, and keep the result for the next load."""
        self._deadline.expect(DISK_STEP_S, "measuring the engine's memory")
        key, store, model = load_key(self._pool, prepared), self._shared.loads, prepared.model
        mapped = 0 if "--no-mmap" in self._pool.flags else model.size_bytes

        def keep() -> None:
            used = measure(engine.pid, prepared.devices, engine.cgroup, mapped)
            before = store.last(key) or Load()
            took_s = before.took_s if load.took_s is None else load.took_s
            needs = {**before.need_bytes, **used}
            store.save(key, load.model_copy(update={"need_bytes": needs, "took_s": took_s}))

        await trio.to_thread.run_sync(keep)
        await self._describe(prepared)

    async def _command(self, prepared: Prepared) -> EngineCommand:
        port = await self._port()
        return command.engine_command(
            self._pool,
            prepared.engine,
            prepared.model,
            port=port,
            devices=prepared.devices,
            cache_ram_mib=self._shared.cache_ram_mib,
        )

    async def _port(self) -> int:
        held = await self._shared.launcher.held_port(self._pool.id)
        try:
            return self._shared.ports.claim(self._pool.id, lambda port: port == held or ports.is_free(port))
        except ports.PortInUse as error:
            holder = await trio.to_thread.run_sync(ports.holder_of, error.port)
            raise ports.in_use_failure(error.port, holder) from error

    async def _answers(self, running: EngineCommand) -> bool:
        self._deadline.expect(DISK_STEP_S, "looking for a running engine")
        return await is_alive(_url(running), self._pool.engine)

    async def _wait_until_healthy(self, engine: RunningEngine, prepared: Prepared, started: EngineCommand) -> None:
        """Return once the engine is healthy. Raises ProvisioningFailure if it ends or takes too long."""
        limit_s = load_limit_s(self._pool.timeouts, prepared.model.size_bytes)
        self._deadline.expect(limit_s + DISK_STEP_S, "waiting for the engine to load its model")
        check = partial(until_healthy, _url(started), self._pool.engine, limit_s, self._reporter.starting)
        healthy = await while_running(engine, check)
        if healthy is None:
            raise await self._exit_failure(engine, prepared)
        if not healthy:
            await self._stop(engine)
            self._reporter.count_exit("start_timeout")
            message = f"the engine was not healthy within {limit_s:.0f} s; {await engine.exit_message()}"
            raise ProvisioningFailure(message, "Raise timeouts.wall_ms if the disk is slow.", Retry.RESTART)

    async def _announce(self, engine: RunningEngine, prepared: Prepared, started: EngineCommand) -> int:
        """Announce the engine; return its context in tokens per slot."""
        url, pool = _url(started), self._pool
        self._deadline.expect(DISK_STEP_S, "announcing the engine")
        reported = await describe(url, pool.engine)
        if reported.ctx_max and reported.ctx_max < pool.ctx:
            log.warning(
                "pool %s: the model supports a context of %d tokens, less than the configured %d",
                pool.id,
                reported.ctx_max,
                pool.ctx,
            )
        ctx = min(reported.ctx_max or pool.ctx, pool.ctx)
        announced = Announcement(
            pool_id=pool.id,
            engine=pool.engine,
            engine_version=prepared.engine.version,
            mode=pool.provisioning.mode,
            url=url,
            slots=reported.slots or pool.slots,
            ctx=ctx,
            device_mask=devices.mask_text(prepared.devices),
            model=prepared.model,
            flags=tuple(command.announced_flags(started, prepared.engine)),
            workloads=served(pool, reported.workloads),
            pid=engine.pid,
            unit=engine.unit,
        )
        await self._reporter.ready(announced, adopted=engine.adopted)
        await trio.to_thread.run_sync(release_after_start)  # unpacking and hashing leave about 10 MB unused
        return ctx

    async def _watch(self, engine: RunningEngine, prepared: Prepared, started: EngineCommand) -> NoReturn:
        """Watch the engine. Raises ProvisioningFailure when it ends, or was stopped because it stopped answering."""
        silent = await while_running(engine, partial(until_silent, _url(started), self._pool.engine, self._on_check))
        if silent is None:
            raise await self._exit_failure(engine, prepared)
        await self._stop(engine)
        self._reporter.count_exit("unhealthy")
        message = f"the engine did not answer its health check for {UNHEALTHY_S:g} s: {silent}"
        raise ProvisioningFailure(message, retry=Retry.RESTART)

    def _on_check(self) -> None:
        self._deadline.expect(WATCH_S + LIMIT_S, "watching the engine")

    async def _stop(self, engine: RunningEngine) -> None:
        self._deadline.expect(DISK_STEP_S, "stopping the engine")
        await engine.stop()

    async def _exit_failure(self, engine: RunningEngine, prepared: Prepared) -> ProvisioningFailure:
        self._deadline.expect(DISK_STEP_S, "reading why the engine ended")
        await self._reporter.lost()
        watched = [prepared.model.path, prepared.engine.program.file]
        message = await engine.exit_message()
        cause = exit_cause(message)
        self._reporter.count_exit(cause)
        return ProvisioningFailure(message, EXIT_HINTS.get(cause, ""), Retry.RESTART, watched)


def _url(running: EngineCommand) -> str:
    return f"http://{command.HOST}:{running.port}"

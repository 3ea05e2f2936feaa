"""One try to have an engine of our own: get it, start it, see it healthy, announce it, watch it."""

import logging
import math
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import trio

from engine_provisioner.acquire import checksums
from engine_provisioner.acquire.acquiring import Acquiring
from engine_provisioner.engine import Command, Engine, LocalModel
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.launch import command, devices, ports, probing
from engine_provisioner.launch.last_words import exit_cause
from engine_provisioner.launch.launcher import Launcher, RunningEngine
from engine_provisioner.progress import Progress
from engine_provisioner.report.announcing import Announcement
from engine_provisioner.report.voice import Voice
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.workloads import served
from engine_provisioner.supervise.watching import (
    UNHEALTHY_S,
    WATCH_S,
    is_alive,
    until_healthy,
    until_silent,
    while_running,
)
from llama_orch.engines.describing import LOOK_S, llama_server_facts
from llama_orch.service.memory import release_after_start
from llama_orch.settings.types import GpuMask

log = logging.getLogger("engine_provisioner.pool")


@dataclass(frozen=True)
class Workshop:
    """What all managed pools of a daemon share."""

    gpu_mask: GpuMask
    cache_ram_mib: int
    acquiring: Acquiring
    launcher: Launcher
    ports: ports.Ports


@dataclass(frozen=True)
class Prepared:
    """What an engine needs before it can be started."""

    engine: Engine
    model: LocalModel
    devices: tuple[int, ...]


class ManagedPool:
    """The life of a pool whose engine this daemon starts."""

    def __init__(self, pool: Pool, workshop: Workshop, voice: Voice, progress: Progress) -> None:
        self._pool = pool
        self._shop = workshop
        self._voice = voice
        self._progress = progress

    async def live(self) -> NoReturn:
        """Ends by ProvisioningFailure only."""
        await self._voice.provisioning("getting the engine and the model")
        prepared = await self._prepare()
        if not self._pool.preload:
            self._progress.rest("not to be started")
            await self._voice.idle("preload = false: engine and model are here and checked, the engine is not started")
            await trio.sleep_forever()
        wanted = await self._command(prepared)
        self._progress.expect(checksums.DISK_S, "starting the engine")
        await self._voice.starting("starting the engine")
        async with self._shop.launcher.run(self._pool.id, wanted, self._answers) as engine:
            try:
                await self._come_up(engine, prepared, wanted)
                await self._announce(engine, prepared, wanted)
                await self._watch(engine, prepared, wanted)
            finally:
                if engine.unit is None and trio.current_effective_deadline() == -math.inf:  # it ends with the daemon
                    with trio.CancelScope(shield=True):
                        await self._voice.withdraw()
                        await self._voice.idle("engine-provisioner has stopped, and the engine with it")
        raise AssertionError("an engine is watched until it is lost")

    async def _prepare(self) -> Prepared:
        """Cheap checks first: nothing is fetched for a GPU that is not there, or a model that cannot be read."""
        wanted = devices.wanted(self._pool, self._shop.gpu_mask)
        self._progress.expect(checksums.DISK_S, "looking for GPUs")
        if wanted:
            devices.check_present(wanted, await trio.to_thread.run_sync(devices.present_gpus))
        await self._shop.acquiring.check_here(self._pool, self._progress, self._shop.launcher.engine_user)
        program = await self._shop.acquiring.program(self._pool, self._progress, self._voice.progress)
        model = await self._shop.acquiring.model(self._pool, self._progress, self._voice.progress)
        self._progress.expect(3 * probing.LIMIT_S, "asking the engine for its version")
        engine = await probing.probe(program)
        if wanted and "--list-devices" in engine.options:
            env = command.environment(self._pool, wanted)
            devices.check_engine_sees(engine, wanted, await probing.output(program, "--list-devices", env=env))
        return Prepared(engine, model, wanted)

    async def _command(self, prepared: Prepared) -> Command:
        port = await self._port()
        return command.llama_server(
            self._pool,
            prepared.engine,
            prepared.model,
            port=port,
            devices=prepared.devices,
            cache_ram_mib=self._shop.cache_ram_mib,
        )

    async def _port(self) -> int:
        held = await self._shop.launcher.held_port(self._pool.id)
        try:
            return self._shop.ports.claim(self._pool.id, lambda port: port == held or ports.is_free(port))
        except ports.Taken as taken:
            who = await trio.to_thread.run_sync(ports.holder, taken.port)
            raise ports.taken_failure(taken.port, who) from taken

    async def _answers(self, running: Command) -> bool:
        self._progress.expect(checksums.DISK_S, "looking for a running engine")
        return await is_alive(_url(running))

    async def _come_up(self, engine: RunningEngine, prepared: Prepared, started: Command) -> None:
        """Return when the engine is healthy. Raises ProvisioningFailure when it ends or takes too long."""
        limit_s = self._pool.timeouts.wall_ms / 1000
        self._progress.expect(limit_s + checksums.DISK_S, "waiting for the engine to load its model")
        healthy = await while_running(engine, partial(until_healthy, _url(started), limit_s, self._voice.starting))
        if healthy is None:
            raise await self._lost(engine, prepared)
        if not healthy:
            await self._stop(engine)
            self._voice.lost("start_timeout")
            what = f"the engine was not healthy within {limit_s:g} s; {await engine.last_words()}"
            raise ProvisioningFailure(what, "A large model may need a longer timeouts.wall_ms.")

    async def _announce(self, engine: RunningEngine, prepared: Prepared, started: Command) -> None:
        url, pool = _url(started), self._pool
        self._progress.expect(checksums.DISK_S, "announcing the engine")
        said = await llama_server_facts(url)
        if said.ctx and said.ctx < pool.ctx:
            log.warning("pool %s: the model allows a context of %d tokens, not %d", pool.id, said.ctx, pool.ctx)
        announced = Announcement(
            pool_id=pool.id,
            engine="llamacpp",
            engine_version=prepared.engine.version,
            mode=pool.provisioning.mode,
            url=url,
            slots=said.slots or pool.slots,
            ctx=min(said.ctx or pool.ctx, pool.ctx),
            device_mask=devices.mask_text(prepared.devices),
            model=prepared.model,
            flags=tuple(command.announced_flags(started, prepared.engine)),
            workloads=served(pool, said.workloads),
            pid=engine.pid,
            unit=engine.unit,
        )
        await self._voice.ready(announced, adopted=engine.adopted)
        await trio.to_thread.run_sync(release_after_start)  # unpacking and hashing leave some 10 MB behind

    async def _watch(self, engine: RunningEngine, prepared: Prepared, started: Command) -> NoReturn:
        """Raises ProvisioningFailure when the engine ends, or is stopped for being silent."""
        silent = await while_running(engine, partial(until_silent, _url(started), self._watching))
        if silent is None:
            raise await self._lost(engine, prepared)
        await self._stop(engine)
        self._voice.lost("unhealthy")
        raise ProvisioningFailure(f"the engine did not answer its health check for {UNHEALTHY_S:g} s: {silent}")

    def _watching(self) -> None:
        self._progress.expect(WATCH_S + LOOK_S, "watching the engine")

    async def _stop(self, engine: RunningEngine) -> None:
        self._progress.expect(checksums.DISK_S, "stopping the engine")
        await engine.stop()

    async def _lost(self, engine: RunningEngine, prepared: Prepared) -> ProvisioningFailure:
        self._progress.expect(checksums.DISK_S, "asking why the engine ended")
        watched = [prepared.model.path, prepared.engine.program.file]
        words = await engine.last_words()
        self._voice.lost(exit_cause(words))
        return ProvisioningFailure(words, watch=watched)


def _url(running: Command) -> str:
    return f"http://{command.HOST}:{running.port}"

"""engine-provisioner's nursery: the pools' supervisors, the watchdog's view of them, reloads, and the local API."""

import logging
import os
from functools import partial
from pathlib import Path

import trio
from prometheus_client import CollectorRegistry

from engine_provisioner import cleanup
from engine_provisioner.acquirer import Acquirer
from engine_provisioner.api.reloading import Reloading
from engine_provisioner.api.routes import add_routes
from engine_provisioner.cache.model_cache import ModelCache
from engine_provisioner.fetch.bandwidth import Bandwidth
from engine_provisioner.launch import systemd_launcher
from engine_provisioner.launch.child_launcher import ChildLauncher
from engine_provisioner.launch.command import machine_cache_ram_mib
from engine_provisioner.launch.launcher import Launcher
from engine_provisioner.launch.ports import Ports
from engine_provisioner.launch.systemd_launcher import SystemdLauncher
from engine_provisioner.memory.loads import Loads
from engine_provisioner.operations import Operations
from engine_provisioner.plan.preflight import obstacles
from engine_provisioner.pulls import Pulls, source_of, uses_of
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.settings import METRICS_VARIABLE, ProvisionerSettings
from engine_provisioner.sources.model_fetcher import ModelFetcher
from engine_provisioner.sources.source import source_context
from engine_provisioner.spec import pools_directory
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.pools_file import PoolsFileError
from engine_provisioner.spec.replacements import PoolsSource, Replacements
from engine_provisioner.step_deadline import overdue
from engine_provisioner.supervise.pool_set import PoolSet
from engine_provisioner.supervise.preparation import SharedResources
from engine_provisioner.supervise.purge import Purges
from engine_provisioner.supervise.reloads import Reloads
from llama_orch import VERSION
from llama_orch.contracts.pools import POOLS_EXAMPLE
from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app, metrics_app
from llama_orch.http.server.browsers import WebPolicy, own_names
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.reloading import ConfigurationRoutes
from llama_orch.http.server.serving import serve
from llama_orch.service import listeners
from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.memory import release_after_start
from llama_orch.service.reload import Reloader
from llama_orch.service.run import Service
from llama_orch.service.watchdog import Pulse
from llama_orch.telemetry.events.provisioning import POOLS_FILE_ABSENT
from llama_orch.telemetry.events.service import DAEMON_READY, DAEMON_STOPPING
from llama_orch.telemetry.records import emit

log = logging.getLogger("engine_provisioner.daemon")

DRAIN_S = 3.0
NAME = "engine-provisioner"
SOCKET = f"{NAME}.sock"


async def run(settings: ProvisionerSettings, service: Service) -> None:
    """Run the daemon until `service.stop` is set. Raises StartupError."""
    source = pools_source(settings, service)
    configured = await trio.to_thread.run_sync(load_pools, source)
    handoff_dir = settings.handoff_dir.absolute()
    await trio.to_thread.run_sync(prepare_directory, handoff_dir, [pool.id for pool in configured])
    registry = CollectorRegistry()
    reports = PoolReports(handoff_dir / "status", registry)
    sockets = listeners.local(service, handoff_dir.parent / SOCKET)
    address = sockets[0].getsockname()
    context = source_context(settings, settings.cache_dir.absolute(), service.environ)
    limit_bytes = settings.cache_limit.count if settings.cache_limit else None
    operations = Operations()
    app = create_app(service.name, reports.unready_pools, registry)
    async with trio.open_nursery() as nursery:
        launcher = _launcher(service, nursery)
        cache = ModelCache(context.cache_dir, limit_bytes, lambda: uses_of(pools.used_pools, context))
        fetcher = ModelFetcher(context, Bandwidth(settings.download_limit), cache)
        acquirer = Acquirer(fetcher, reports.metrics.add_downloaded)
        shared = await _shared_resources(settings, configured, launcher, acquirer)
        pools = PoolSet(shared, reports, handoff_dir)
        reloads = Reloads(source, pools, reports, service.notifier)
        reloader = Reloader(settings, service, reports.summary, reloads.reload_configuration)
        pulls = Pulls(source_of(fetcher), operations, lambda: pools.pools)
        purges = Purges(pools, reports, cache, shared.loads, context.cache_dir)
        reloading = Reloading(pools, source, cache, purges)
        preflight = partial(obstacles, settings, context)
        add_routes(
            app, pools, reports, reloads, cache, pulls, operations, reloading, preflight, limit_bytes=limit_bytes
        )
        mount(app, None, ConfigurationRoutes(reloader))
        await nursery.start(operations.run)
        serve_local = partial(serve, shutdown=service.stop, drain_s=DRAIN_S, pulse=service.watchdog.pulse)
        await nursery.start(serve_local, Gate(app, Access()), sockets)
        await nursery.start(watch_supervisors, service, reports, pools, service.watchdog.pulse("supervisors"))
        await _start_metrics(settings, service, registry, nursery)
        nursery.start_soon(reports.restore_lost_files)
        async with trio.open_nursery() as supervisors:
            await supervisors.start(pools.run)
            await pools.apply(configured)
            release_after_start()
            service.notifier.ready(reports.summary())
            emit(DAEMON_READY, daemon=service.name, version=VERSION, address=address)
            supervisors.start_soon(reloads.run, launcher)
            supervisors.start_soon(reloader.run)
            await service.stop.wait()
            emit(DAEMON_STOPPING, daemon=service.name, detail=_fate_of_engines(launcher))
            supervisors.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


def pools_source(settings: ProvisionerSettings, service: Service) -> PoolsSource:
    """Return the pools files, and the models that replace theirs, recorded in the state directory."""
    given = service.environ.get("STATE_DIRECTORY")
    state = Path(given) if given else settings.handoff_dir.absolute().parent / NAME
    return PoolsSource(pools_directory.path_for(settings.pools_config), Replacements(state / "replaced-models"))


def load_pools(source: PoolsSource) -> list[Pool]:
    """Return the pools of the pools files, or none if there is no file. Blocks; raises StartupError."""
    try:
        pools = source.read()
    except PoolsFileError as error:  # changed since `check` read it
        raise StartupError(str(error), "See llama-orch-pools(5).", ExitStatus.CONFIG) from error
    if pools is None:
        emit(POOLS_FILE_ABSENT, path=source.path, example=POOLS_EXAMPLE)
    return pools or []


def prepare_directory(handoff_dir: Path, configured: list[str]) -> None:
    """Create the handoff directory and remove the handoffs of earlier runs. Blocks; raises StartupError."""
    try:
        (handoff_dir / "status").mkdir(parents=True, exist_ok=True)
        for pool_id in cleanup.withdraw_all(handoff_dir, configured):
            log.info("pool %s is no longer in the pools files; its handoff file is removed", pool_id)
    except OSError as error:
        message = f"cannot use the handoff directory {handoff_dir}: {error.strerror or error} ({error.filename})"
        hint = "Give engine-provisioner write permission there, or set ENGINE_PROVISIONER_HANDOFF_DIR."
        raise StartupError(message, hint, ExitStatus.CANNOT_CREATE) from error


async def watch_supervisors(
    service: Service,
    reports: PoolReports,
    pools: PoolSet,
    pulse: Pulse,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Update STATUS=, and beat `pulse` while no supervisor is overdue."""
    task_status.started()
    while True:
        changed = reports.changed
        if not service.stop.is_set():
            service.notifier.status(reports.summary())
        if late := overdue(pools.deadlines):
            log.error("no progress: %s", "; ".join(late))
            await trio.sleep(pulse.interval_s)
        else:
            await pulse.wait(changed)


def _launcher(service: Service, nursery: trio.Nursery) -> Launcher:
    if systemd_launcher.is_available(service.environ, os.getpid()):
        return SystemdLauncher()
    return ChildLauncher(nursery)


async def _start_metrics(
    settings: ProvisionerSettings, service: Service, registry: CollectorRegistry, nursery: trio.Nursery
) -> None:
    """Serve /metrics over TCP if an address is set: a loopback address to this machine, others to everyone."""
    if (address := settings.metrics_address) is None:
        return
    app = metrics_app(service.name, registry)
    served = Gate(app, Access(everybody=not address.loopback), web=WebPolicy(own_names=own_names(address.host)))
    sockets = listeners.tcp(service, "metrics", address, "metrics", METRICS_VARIABLE)
    start = partial(serve, shutdown=service.stop, drain_s=DRAIN_S, pulse=service.watchdog.pulse)
    await nursery.start(start, served, sockets)


async def _shared_resources(
    settings: ProvisionerSettings, pools: list[Pool], launcher: Launcher, acquirer: Acquirer
) -> SharedResources:
    commands = await launcher.known_commands()
    previous_ports = {pool_id: known.port for pool_id, known in commands.items() if known.port is not None}
    return SharedResources(
        gpu_mask=settings.gpu_mask,
        cache_ram_mib=machine_cache_ram_mib(),
        acquirer=acquirer,
        launcher=launcher,
        ports=Ports(pools, previous_ports),
        loads=Loads(settings.cache_dir.absolute()),
    )


def _fate_of_engines(launcher: Launcher) -> str:
    return "engines keep running" if isinstance(launcher, SystemdLauncher) else "engines are stopped"

"""pool-managerd's components and its nursery: which loops run, how they start and stop."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from llama_orch import VERSION
from llama_orch.addresses import Host
from llama_orch.engines.connections import engine_connections
from llama_orch.http.client.idle_connections import IdleConnections
from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app, metrics_app
from llama_orch.http.server.browsers import WebPolicy, own_names
from llama_orch.http.server.gate import Gate, for_metrics
from llama_orch.http.server.mounting import mount
from llama_orch.http.server.reloading import ConfigurationRoutes
from llama_orch.http.server.serving import serve
from llama_orch.http.tls.current import CurrentTls
from llama_orch.http.tls.expiry import keep_warning
from llama_orch.service import listeners
from llama_orch.service.machine_id import machine_id
from llama_orch.service.memory import release_after_start
from llama_orch.service.reload import Reloader
from llama_orch.service.run import Service
from llama_orch.spool import Identity, watch
from llama_orch.spool.handoffs import HandoffFile
from llama_orch.spool.reader import SpoolReader
from llama_orch.telemetry.events.service import DAEMON_READY, DAEMON_STOPPING
from llama_orch.telemetry.records import emit
from pool_managerd.api.routes import add_routes
from pool_managerd.cluster.addressing import address_of, wake_of
from pool_managerd.cluster.agent import Agent, NodeIdentity
from pool_managerd.cluster.capabilities import cores, read_memory
from pool_managerd.cluster.queen_client import HttpQueenClient
from pool_managerd.draining import Draining
from pool_managerd.engines.health import HealthLoop
from pool_managerd.gpus.kernel_log import KernelLog
from pool_managerd.gpus.monitor import GpuMonitor
from pool_managerd.gpus.nvml import real_nvml
from pool_managerd.gpus.nvml_events import NvmlEvents
from pool_managerd.gpus.readers import READERS
from pool_managerd.gpus.tokens import count_tokens
from pool_managerd.gpus.totals import GpuTotals
from pool_managerd.handoffs.handoffs import HandoffLoop
from pool_managerd.handoffs.reports import ReportReader
from pool_managerd.handoffs.state_file import StateFile
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.power.power import REQUEST, Power
from pool_managerd.power.sleep_lock import SleepLock
from pool_managerd.provisioner_client import ProvisionerClient
from pool_managerd.settings import PoolManagerSettings
from pool_managerd.status import keep_status, summary_line

NAME = "pool-managerd"
DRAIN_S = {"home": 5.0, "cloud": 30.0}
"""By profile: in CLOUD_PROFILE the relay carries the answers of engines."""
FIRST_PROBES_S = 2.0
"""How long a start waits for GPUs and saved engines, so that a restart does not report ready pools as unready."""


@dataclass(frozen=True)
class Parts:
    """The daemon's components."""

    settings: PoolManagerSettings
    node_pools: NodePools
    metrics: Metrics
    health: HealthLoop
    reports: ReportReader
    handoffs: HandoffLoop
    draining: Draining
    monitor: GpuMonitor
    agent: Agent | None
    provisioner: ProvisionerClient
    power: Power
    tls: CurrentTls
    store: StateFile

    @property
    def line(self) -> str:
        return summary_line(self.node_pools, self.agent, self.store)


def state_directory(settings: PoolManagerSettings, service: Service) -> Path:
    """Return the directory of pools.json: systemd's StateDirectory=, or one beside the handoff directory."""
    given = service.environ.get("STATE_DIRECTORY")
    return Path(given) if given else settings.runtime_dir.parent / NAME


def runtime_directory(settings: PoolManagerSettings, service: Service) -> Path:
    """Return the directory of fences and requests: systemd's RuntimeDirectory=, or that of the handoff directory."""
    given = service.environ.get("RUNTIME_DIRECTORY")
    return Path(given) if given else settings.runtime_dir.parent


async def build(settings: PoolManagerSettings, service: Service) -> Parts:
    """Build and wire the components, with the pools of the last run. Nothing runs yet.

    Raises ConfigurationError for unusable TLS files.
    """
    tls = CurrentTls(settings.tls, service.environ)
    state = state_directory(settings, service)
    store = StateFile(state)
    saved = await trio.to_thread.run_sync(store.load)
    node_pools = NodePools()
    node_pools.restore(saved)
    totals = GpuTotals()
    metrics = Metrics(node_pools, totals)
    monitor = gpu_monitor(settings, service, node_pools, totals)
    await monitor.load()
    health = HealthLoop(node_pools, metrics)
    reports = ReportReader(settings.runtime_dir)
    handoffs = HandoffLoop(
        intake=SpoolReader(settings.runtime_dir, moves_bad=True, taken=already_taken(saved, settings)),
        reports=reports,
        node_pools=node_pools,
        health=health,
        store=store,
        metrics=metrics,
        interval_s=settings.watch_interval_ms / 1000,
        deletes=settings.auto_delete,
    )
    draining = Draining(node_pools, metrics, settings.node_id)
    agent = await agent_of(settings, state, node_pools, tls)
    provisioner = ProvisionerClient(settings.runtime_dir)
    request = runtime_directory(settings, service) / REQUEST
    power = Power(node_pools, provisioner, SleepLock(), agent, request, settings.suspend_after_s)
    return Parts(
        settings,
        node_pools,
        metrics,
        health,
        reports,
        handoffs,
        draining,
        monitor,
        agent,
        provisioner,
        power,
        tls,
        store,
    )


def gpu_monitor(
    settings: PoolManagerSettings, service: Service, node_pools: NodePools, totals: GpuTotals
) -> GpuMonitor:
    return GpuMonitor(
        node_pools,
        {vendor: create() for vendor, create in READERS.items()},
        totals,
        runtime_directory(settings, service),
        interval_s=settings.gpu_read_interval_ms / 1000,
        discovery_s=settings.gpu_interval_ms / 1000,
    )


async def agent_of(settings: PoolManagerSettings, state: Path, node_pools: NodePools, tls: CurrentTls) -> Agent | None:
    """Return the agent; None in HOME_PROFILE, where the queen polls this daemon instead."""
    if not (settings.queen_url and settings.node_id and settings.token):
        return None
    node = NodeIdentity(
        node_id=settings.node_id,
        machine_id=await trio.to_thread.run_sync(machine_id, state),
        queen_url=settings.queen_url,
        interval_s=settings.heartbeat_s,
        cpu_cores=cores(),
        ram_total_bytes=await trio.to_thread.run_sync(read_memory),
        address=partial(address_of, settings),
        wake=partial(wake_of, settings),
    )
    return Agent(node, HttpQueenClient(settings.queen_url, settings.token, tls), node_pools)


def already_taken(saved: Iterable[HandoffFile], settings: PoolManagerSettings) -> list[Identity]:
    """Return the handoff files not to take again. With auto_delete there are none: a file still there was not taken."""
    return [] if settings.auto_delete else [found.identity for found in saved]


def as_bound(settings: PoolManagerSettings, service: Service) -> PoolManagerSettings:
    """Return `settings` with the actual address of systemd's socket, if there is one."""
    metrics_address = Host(settings.bind.host, settings.metrics_port)
    listeners.effective_address(service, "metrics", metrics_address, "PROMETHEUS_METRICS_PORT")
    return settings.model_copy(
        update={"bind": listeners.effective_address(service, "api", settings.bind, "POOL_MANAGERD_BIND_ADDR")}
    )


async def run(settings: PoolManagerSettings, service: Service) -> None:
    """Run until `service.stop` is set. Then deregister, and give running requests DRAIN_S seconds to end."""
    bound = as_bound(settings, service)
    parts = await build(bound, service)
    reloader = Reloader(settings, service, lambda: parts.line, parts.tls.reload)
    closing = trio.Event()
    async with trio.open_nursery() as loops:
        await _start_loops(parts, service, loops)
        async with engine_connections() as connections, trio.open_nursery() as serving:
            await _start_serving(parts, service, reloader, closing, connections, serving)
            if parts.agent:
                await loops.start(parts.agent.run)
            loops.start_soon(parts.power.run)
            loops.start_soon(reloader.run)
            release_after_start()
            service.notifier.ready(parts.line)
            emit(DAEMON_READY, daemon=NAME, version=VERSION, address=bound.bind)
            await service.stop.wait()
            emit(DAEMON_STOPPING, daemon=NAME, detail=parts.line)
            if parts.agent:
                await parts.agent.leave()
            closing.set()
        loops.cancel_scope.cancel()


async def _start_loops(parts: Parts, service: Service, nursery: trio.Nursery) -> None:
    settings, ring = parts.settings, parts.handoffs.bell.ring
    interval_s = settings.watch_interval_ms / 1000
    read_s = settings.gpu_read_interval_ms / 1000
    nursery.start_soon(parts.monitor.run)
    nursery.start_soon(parts.monitor.follow, NvmlEvents(real_nvml))
    nursery.start_soon(parts.monitor.follow, KernelLog(parts.monitor.read_until_s))
    nursery.start_soon(count_tokens, parts.node_pools, parts.monitor.totals.energy, read_s)
    await nursery.start(partial(watch, settings.runtime_dir, ring, interval_s=interval_s))
    await nursery.start(partial(watch, parts.reports.directory, ring, interval_s=interval_s))
    await nursery.start(parts.health.run, service.watchdog.pulse("health"))
    await nursery.start(parts.handoffs.run, service.watchdog.pulse("handoffs"))
    await nursery.start(parts.draining.run)
    nursery.start_soon(keep_status, parts.node_pools, parts.agent, parts.store, service.notifier)
    nursery.start_soon(keep_warning, lambda: parts.tls.expiring, parts.tls.renewed)
    with trio.move_on_after(FIRST_PROBES_S):
        await parts.node_pools.gpus_discovered.wait()
        await parts.node_pools.engines_probed()


async def _start_serving(
    parts: Parts,
    service: Service,
    reloader: Reloader,
    closing: trio.Event,
    connections: IdleConnections,
    nursery: trio.Nursery,
) -> None:
    settings, collectors = parts.settings, parts.metrics.collectors
    app = create_app(NAME, parts.handoffs.troubles, collectors)
    gate_routes = add_routes(
        app,
        parts.node_pools,
        parts.handoffs,
        parts.draining,
        parts.agent,
        parts.provisioner,
        parts.monitor,
        parts.power,
        connections=connections,
        stop=service.stop,
        body_limit=settings.body_limit,
    )
    mount(app, None, ConfigurationRoutes(reloader))
    api = listeners.tcp(service, "api", settings.bind, "HTTP API", "POOL_MANAGERD_BIND_ADDR")
    metrics_address = Host(settings.bind.host, settings.metrics_port)
    scrape = listeners.tcp(service, "metrics", metrics_address, "metrics", "PROMETHEUS_METRICS_PORT")
    local = listeners.local(service, settings.runtime_dir.parent / f"{NAME}.sock")
    listeners.log_access(settings.bind, settings.token, settings.second_token, over=parts.tls.words)
    start = partial(serve, pulse=service.watchdog.pulse, shutdown=closing, drain_s=DRAIN_S[settings.profile])
    access = Access(settings.token, settings.auth_optional, settings.second_token)
    web = WebPolicy(settings.allowed_hosts, settings.allowed_origins, own_names(settings.bind.host))
    await nursery.start(partial(start, tls=parts.tls), Gate(app, access, gate_routes, web), api)
    await nursery.start(start, Gate(app, Access(), gate_routes), local)
    await nursery.start(start, for_metrics(metrics_app(NAME, collectors), settings.token, web), scrape)

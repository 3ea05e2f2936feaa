"""queen-rbee's nursery: which loops run concurrently, the order in which they start, and how they stop."""

import logging
from functools import partial
from pathlib import Path

import trio

from llama_orch import VERSION
from llama_orch.addresses import Host
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
from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.memory import collect, collect_young, release_after_start
from llama_orch.service.reload import Reloader
from llama_orch.service.run import Service
from llama_orch.spool import watch
from llama_orch.telemetry.events import service as events
from llama_orch.telemetry.records import emit
from queen_rbee.api.routes import add_routes
from queen_rbee.api.v1.batch_lines import BatchLines
from queen_rbee.dispatch.health_checks import check_forever
from queen_rbee.intake.progress import report_progress
from queen_rbee.intake.recovery import restore
from queen_rbee.keys.keys_source import KeysSource
from queen_rbee.keys.usage_file import UsageFile
from queen_rbee.parts import Parts, build
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.settings import QueenSettings
from queen_rbee.sources.pool_manager import PoolManagerSource
from queen_rbee.status import keep_status, summary, unready
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.store.sqlite.store import open_store

DRAIN_S = 30.0
SERVING_MARGIN_S = 5.0
SYNC_TIMEOUT_S = 5.0
HOUSEKEEPING_INTERVAL_S = 30.0
NAME = "queen-rbee"


def state_directory(settings: QueenSettings, service: Service) -> Path:
    """Return the store's directory: systemd's StateDirectory=, else next to the handoff directory."""
    directory = service.environ.get("STATE_DIRECTORY")
    return Path(directory) if directory else settings.runtime_dir.parent / NAME


async def run(settings: QueenSettings, service: Service) -> None:
    """Run until `service.stop` is set and all tasks have ended, or DRAIN_S seconds later.

    Raises StartupError if the stored state cannot be read, ConfigurationError for invalid TLS files.
    """
    tls = CurrentTls(settings.tls, service.environ)
    bound = with_bound_address(settings, service)
    try:
        directory = state_directory(settings, service)
        async with open_store(directory, service.watchdog.pulse("store")) as store:
            parts = build(bound, store, directory, tls)
            keys, usage = KeysSource(parts.keys, settings.keys_file, service.environ), UsageFile(directory)
            status = partial(summary, parts.queue, parts.registry, parts.fleet)
            reloader = Reloader(settings, service, status, tls.reload, keys.reload)
            logging.getLogger().addHandler(parts.live.journal)
            parts.keys.restore_totals(await usage.load())
            await keys.load()
            await _load_state(parts)
            try:
                await _run(parts, service, reloader, usage)
            finally:
                await parts.hop.aclose()
            await usage.save(parts.keys)
    except StoreFailure as failure:
        raise StartupError(str(failure), failure.hint, ExitStatus.IO_ERROR) from failure


def with_bound_address(settings: QueenSettings, service: Service) -> QueenSettings:
    """Return `settings` with the address of systemd's socket, if there is one."""
    metrics_address = Host(settings.address.host, settings.metrics_port)
    listeners.effective_address(service, "metrics", metrics_address, "PROMETHEUS_METRICS_PORT")
    bound = listeners.effective_address(service, "api", settings.address, settings.address_variable)
    return settings if bound == settings.address else settings.model_copy(update={"bind": bound})


async def _load_state(parts: Parts) -> None:
    """Raises StoreFailure."""
    await parts.sessions.load(trio.current_time())
    await parts.catalog.load()
    try:
        await parts.batches.load()
    except OSError as error:
        raise StoreFailure(f"the files of batches cannot be read: {error}") from error
    if parts.settings.cloud_profile:
        await parts.fleet.load()
    await restore(parts.shared.tasks, parts.intake, parts.book, parts.accounting)


async def _run(parts: Parts, service: Service, reloader: Reloader, usage: UsageFile) -> None:
    async with trio.open_nursery() as loops:
        await _start_loops(parts, service, loops)
        loops.start_soon(usage.keep, parts.keys)
        async with trio.open_nursery() as serving:
            await _start_serving(parts, service, reloader, serving)
            release_after_start()
            service.notifier.ready(summary(parts.queue, parts.registry, parts.fleet))
            loops.start_soon(reloader.run)
            emit(events.DAEMON_READY, daemon=NAME, version=VERSION, address=parts.settings.address)
            await service.stop.wait()
            await _drain(parts)
        # only now: the watchdog watches the loops while answers are being sent
        loops.cancel_scope.cancel()


async def _start_loops(parts: Parts, service: Service, nursery: trio.Nursery) -> None:
    settings, registry, metrics, tls = parts.settings, parts.registry, parts.metrics, parts.tls
    await nursery.start(parts.dispatcher.run, service.watchdog.pulse("dispatcher"))
    await nursery.start(parts.catalog.run)
    await nursery.start(parts.operations.run)
    await nursery.start(parts.keeper.run)
    lines = BatchLines(parts.intake, parts.dispatcher, parts.queue, registry, parts.catalog)
    await nursery.start(parts.batches.run, lines.execute, lines.load)
    if settings.cloud_profile:
        await nursery.start(parts.fleet.run, service.watchdog.pulse("fleet"))
        await nursery.start(parts.waker.run)
    if parts.handoffs:
        interval_s = settings.watch_interval_ms / 1000
        watch_handoffs = partial(watch, settings.runtime_dir, parts.handoffs.bell.ring, interval_s=interval_s)
        await nursery.start(watch_handoffs)
        await nursery.start(parts.handoffs.run)
        new_source = partial(PoolManagerSource, token=settings.token, registry=registry, metrics=metrics, tls=tls)
        sources = [new_source(url) for url in settings.pool_managers]
        for source in sources:
            nursery.start_soon(source.run)
        nursery.start_soon(_mark_synced, registry, sources)
    nursery.start_soon(keep_status, parts.queue, registry, parts.accounting, metrics, parts.fleet, service.notifier)
    nursery.start_soon(keep_warning, lambda: tls.expiring, tls.renewed)
    nursery.start_soon(report_progress, parts.queue, parts.forecast, parts.registry)
    nursery.start_soon(check_forever, registry, parts.hop, metrics)
    nursery.start_soon(_housekeeping, parts)
    nursery.start_soon(collect_young)


async def _housekeeping(parts: Parts) -> None:
    """Remove expired sessions and responses, and collect garbage once queen-rbee has been idle for an interval.

    A full collection stops everything else (0.3 s with 8,000 pools): a short pause between two tasks does not suffice.
    """
    last_collected = last_seen = parts.placer.placements
    while True:
        await parts.sessions.remove_expired(trio.current_time())
        parts.responses.remove_expired()
        if parts.dispatcher.idle and parts.placer.placements == last_seen != last_collected:
            last_collected = last_seen
            collect()
        last_seen = parts.placer.placements
        await trio.sleep(HOUSEKEEPING_INTERVAL_S)


async def _mark_synced(registry: PoolRegistry, sources: list[PoolManagerSource]) -> None:
    """Let unknown pools count as missing once all sources have been asked."""
    with trio.move_on_after(SYNC_TIMEOUT_S):
        for source in sources:
            await source.polled.wait()
    registry.synced = True


async def _start_serving(parts: Parts, service: Service, reloader: Reloader, nursery: trio.Nursery) -> None:
    settings = parts.settings
    address, metrics = settings.address, parts.metrics.registry
    app = create_app(NAME, partial(unready, parts.registry), metrics)
    gate_routes = add_routes(app, parts)
    mount(app, None, ConfigurationRoutes(reloader))
    api = listeners.tcp(service, "api", address, "HTTP API", settings.address_variable)
    metrics_address = Host(address.host, settings.metrics_port)
    scrape = listeners.tcp(service, "metrics", metrics_address, "metrics", "PROMETHEUS_METRICS_PORT")
    local = listeners.local(service, settings.runtime_dir.parent / "queen-rbee.sock")
    listeners.log_access(address, settings.token, settings.second_token, over=parts.tls.words)
    start = partial(serve, pulse=service.watchdog.pulse, shutdown=service.stop, drain_s=DRAIN_S + SERVING_MARGIN_S)
    access = Access(settings.token, settings.auth_optional, settings.second_token, page=True)
    web = WebPolicy(settings.allowed_hosts, settings.allowed_origins, own_names(settings.address.host))
    await nursery.start(partial(start, tls=parts.tls), Gate(app, access, gate_routes, web, parts.keys), api)
    await nursery.start(start, Gate(app, Access(), gate_routes), local)
    await nursery.start(start, for_metrics(metrics_app(NAME, metrics), settings.token, web), scrape)


async def _drain(parts: Parts) -> None:
    """Refuse new tasks, and wait up to DRAIN_S seconds for running ones. The others run after the restart if they are
    stored, else their clients are told to retry."""
    parts.intake.close()
    parts.live.closed = True
    emit(events.DAEMON_STOPPING, daemon=NAME, detail=summary(parts.queue, parts.registry, parts.fleet))
    with trio.move_on_after(DRAIN_S):
        await parts.dispatcher.finish()
    parts.dispatcher.abandon()

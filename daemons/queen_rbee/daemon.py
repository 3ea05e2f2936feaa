"""queen-rbee's nursery: which loops run side by side, in which order they start, and how they stop."""

from functools import partial
from pathlib import Path

import trio

from llama_orch import VERSION
from llama_orch.addresses import Host
from llama_orch.http.server.app import create_app, metrics_app
from llama_orch.http.server.browsers import WebPolicy, own_names
from llama_orch.http.server.gate import Access, Gate, for_metrics
from llama_orch.http.server.serving import serve
from llama_orch.http.tls.expiry import held, keep_warning
from llama_orch.http.tls.tls import Tls
from llama_orch.service import listeners
from llama_orch.service.exit import ExitStatus, StartupError
from llama_orch.service.memory import collect, give_back, keep_young
from llama_orch.service.run import Service
from llama_orch.spool import watch
from llama_orch.telemetry import events
from llama_orch.telemetry.records import emit
from queen_rbee.api.routes import add_routes
from queen_rbee.dispatch.health_checks import keep_checking
from queen_rbee.intake.progress import keep_telling
from queen_rbee.intake.restoring import restore
from queen_rbee.parts import Parts, build
from queen_rbee.pools.registry import Registry
from queen_rbee.settings import QueenSettings
from queen_rbee.sources.pool_manager import PoolManagerSource
from queen_rbee.status import keep_status, summary, unready
from queen_rbee.store.protocol import StoreFailure
from queen_rbee.store.sqlite.store import open_store

DRAIN_S = 30.0
SERVING_MARGIN_S = 5.0
SYNC_LIMIT_S = 5.0
TIDY_INTERVAL_S = 30.0
NAME = "queen-rbee"


def state_directory(settings: QueenSettings, service: Service) -> Path:
    """Where accepted tasks are kept: systemd's StateDirectory=, or beside the handoff directory."""
    given = service.environ.get("STATE_DIRECTORY")
    return Path(given) if given else settings.runtime_dir.parent / NAME


async def run(settings: QueenSettings, service: Service) -> None:
    """Run until `service.stop` is set and what was running has ended or DRAIN_S seconds have passed.

    Raises StartupError where the state of the last run cannot be had, ConfigurationError for files of TLS.
    """
    tls = Tls.of(settings.tls)
    settings = as_bound(settings, service)
    try:
        async with open_store(state_directory(settings, service), service.watchdog.pulse("store")) as store:
            parts = build(settings, store, tls)
            await _remember(parts)
            try:
                await _run(parts, service)
            finally:
                await parts.dispatcher.runs.hop.aclose()
    except StoreFailure as failure:
        raise StartupError(str(failure), failure.hint, ExitStatus.IO_ERROR) from failure


def as_bound(settings: QueenSettings, service: Service) -> QueenSettings:
    """`settings` with the address at which systemd's socket really listens, if there is one."""
    metrics_address = Host(settings.address.host, settings.metrics_port)
    listeners.settle(service, "metrics", metrics_address, "PROMETHEUS_METRICS_PORT")
    real = listeners.settle(service, "api", settings.address, settings.address_variable)
    return settings if real == settings.address else settings.model_copy(update={"bind": real})


async def _remember(parts: Parts) -> None:
    """Know again what earlier queens have left. Raises StoreFailure."""
    await parts.accounting.sessions.load(trio.current_time())
    await parts.accounting.catalog.load()
    if parts.settings.cloud_profile:
        await parts.fleet.load()
    await restore(parts.store, parts.intake, parts.accounting)


async def _run(parts: Parts, service: Service) -> None:
    async with trio.open_nursery() as loops:
        await _start_loops(parts, service, loops)
        async with trio.open_nursery() as serving:
            await _start_serving(parts, service, serving)
            give_back()
            service.notifier.ready(summary(parts.dispatcher, parts.fleet))
            emit(events.DAEMON_READY, daemon=NAME, version=VERSION, address=parts.settings.address)
            await service.stop.wait()
            await _drain(parts)
        # not before: the watchdog watches the loops for as long as answers are under way
        loops.cancel_scope.cancel()


async def _start_loops(parts: Parts, service: Service, nursery: trio.Nursery) -> None:
    settings, registry = parts.settings, parts.registry
    await nursery.start(parts.dispatcher.run, service.watchdog.pulse("dispatcher"))
    await nursery.start(parts.accounting.catalog.run)
    await nursery.start(parts.operations.run)
    if settings.cloud_profile:
        await nursery.start(parts.fleet.run, service.watchdog.pulse("fleet"))
    if parts.handoffs:
        interval_s = settings.watch_interval_ms / 1000
        watching = partial(watch, settings.runtime_dir, parts.handoffs.bell.ring, interval_s=interval_s)
        await nursery.start(watching)
        await nursery.start(parts.handoffs.run)
        metrics, tls = parts.accounting.metrics, parts.tls.client
        asking = partial(PoolManagerSource, token=settings.token, registry=registry, metrics=metrics, tls=tls)
        sources = [asking(url) for url in settings.pool_managers]
        for source in sources:
            nursery.start_soon(source.run)
        nursery.start_soon(_note_sync, registry, sources)
    nursery.start_soon(keep_status, parts.dispatcher, parts.fleet, service.notifier)
    nursery.start_soon(keep_warning, held(settings.tls))
    nursery.start_soon(keep_telling, parts.dispatcher)
    nursery.start_soon(keep_checking, registry, parts.dispatcher.runs.hop, parts.accounting.metrics)
    nursery.start_soon(_keep_tidy, parts)
    nursery.start_soon(keep_young)


async def _keep_tidy(parts: Parts) -> None:
    """Sessions whose time has run out go, and once the queen has been idle for a while, the memory that her work has
    left: looking for it stops everything else (0.3 s with 8,000 pools), and a moment between two tasks will not do."""
    collected = seen = parts.dispatcher.turn
    while True:
        await parts.accounting.sessions.tidy(trio.current_time())
        if parts.dispatcher.idle and parts.dispatcher.turn == seen != collected:
            collected = seen
            collect()
        seen = parts.dispatcher.turn
        await trio.sleep(TIDY_INTERVAL_S)


async def _note_sync(registry: Registry, sources: list[PoolManagerSource]) -> None:
    """From now on a pool that nobody knows does not exist."""
    with trio.move_on_after(SYNC_LIMIT_S):
        for source in sources:
            await source.asked.wait()
    registry.synced = True


async def _start_serving(parts: Parts, service: Service, nursery: trio.Nursery) -> None:
    settings = parts.settings
    address, metrics = settings.address, parts.accounting.metrics.registry
    app = create_app(NAME, partial(unready, parts.dispatcher), metrics)
    gate_routes = add_routes(app, parts)
    api = listeners.tcp(service, "api", address, "HTTP API", settings.address_variable)
    metrics_address = Host(address.host, settings.metrics_port)
    scrape = listeners.tcp(service, "metrics", metrics_address, "metrics", "PROMETHEUS_METRICS_PORT")
    local = listeners.local(service, settings.runtime_dir.parent / "queen-rbee.sock")
    listeners.say_access(address, settings.token, settings.second_token, over=parts.tls.words)
    start = partial(serve, pulse=service.watchdog.pulse, shutdown=service.stop, drain_s=DRAIN_S + SERVING_MARGIN_S)
    access = Access(settings.token, settings.auth_optional, settings.second_token)
    web = WebPolicy(settings.allowed_hosts, settings.allowed_origins, own_names(settings.address.host))
    await nursery.start(partial(start, tls=parts.tls.server), Gate(app, access, gate_routes, web), api)
    await nursery.start(start, Gate(app, Access(), gate_routes), local)
    await nursery.start(start, for_metrics(metrics_app(NAME, metrics), settings.token, web), scrape)


async def _drain(parts: Parts) -> None:
    """Take nothing more in, let what runs end within DRAIN_S seconds; the rest waits for the next queen, or is told to
    try again."""
    parts.intake.close()
    emit(events.DAEMON_STOPPING, daemon=NAME, detail=summary(parts.dispatcher, parts.fleet))
    with trio.move_on_after(DRAIN_S):
        await parts.dispatcher.finish()
    parts.dispatcher.abandon()

"""queen-rbee's nursery: which loops run side by side, in which order they start, and how they stop."""

from dataclasses import dataclass
from functools import partial

import trio

from llama_orch import VERSION
from llama_orch.http.app import create_app, metrics_app
from llama_orch.http.gate import Access, Gate, for_metrics
from llama_orch.http.serving import serve
from llama_orch.service import listeners
from llama_orch.service.memory import give_back
from llama_orch.service.run import Service
from llama_orch.settings.types import Host
from llama_orch.spool import Bell, Intake, watch
from llama_orch.telemetry import events
from llama_orch.telemetry.records import emit
from queen_rbee.admission import AdmissionQueue
from queen_rbee.api.hot import HotHandlers
from queen_rbee.api.scan import add_scan
from queen_rbee.api.views import add_views
from queen_rbee.book import TaskBook
from queen_rbee.dispatcher import Dispatcher
from queen_rbee.engines.adapter import EngineAdapter
from queen_rbee.engines.llamacpp import LlamaCpp
from queen_rbee.intake import Intake as TaskIntake
from queen_rbee.metrics import Metrics
from queen_rbee.registry import Registry
from queen_rbee.settings import QueenSettings
from queen_rbee.sources.handoffs import HandoffSource
from queen_rbee.sources.pool_manager import PoolManagerSource
from queen_rbee.status import keep_status, summary, unready

DRAIN_S = 30.0
SERVING_MARGIN_S = 5.0
SYNC_LIMIT_S = 5.0


@dataclass(frozen=True)
class Parts:
    """The queen's one of each."""

    settings: QueenSettings
    dispatcher: Dispatcher
    tasks: TaskIntake
    handoffs: HandoffSource | None


def build(settings: QueenSettings) -> Parts:
    """All parts, connected, none of them running."""
    bell, metrics = Bell(), Metrics()
    adapters: dict[str, EngineAdapter] = {"llamacpp": LlamaCpp()}
    registry = Registry(bell, adapters)
    dispatcher = Dispatcher(
        queue=AdmissionQueue(settings.capacity, settings.policy),
        book=TaskBook(),
        registry=registry,
        metrics=metrics,
        adapters=adapters,
        strategy=settings.placement,
        bell=bell,
    )
    handoffs = None
    if settings.profile == "home":
        intake = Intake(settings.runtime_dir, moves_bad=False)
        handoffs = HandoffSource(intake, registry, Bell(), settings.watch_interval_ms / 1000)
    return Parts(settings, dispatcher, TaskIntake(dispatcher), handoffs)


async def run(settings: QueenSettings, service: Service) -> None:
    """Run until `service.stop` is set and what was running has ended or DRAIN_S seconds have passed."""
    parts = build(settings)
    async with trio.open_nursery() as loops:
        await _start_loops(parts, service, loops)
        async with trio.open_nursery() as serving:
            await _start_serving(parts, service, serving)
            give_back()
            service.notifier.ready(summary(parts.dispatcher))
            emit(events.DAEMON_READY, daemon="queen-rbee", version=VERSION, address=settings.address)
            await service.stop.wait()
            await _drain(parts)
        # not before: the watchdog watches the loops for as long as answers are under way
        loops.cancel_scope.cancel()


async def _start_loops(parts: Parts, service: Service, nursery: trio.Nursery) -> None:
    settings, registry = parts.settings, parts.dispatcher.registry
    await nursery.start(parts.dispatcher.run, service.watchdog.pulse("dispatcher"))
    if parts.handoffs:
        interval_s = settings.watch_interval_ms / 1000
        watching = partial(watch, settings.runtime_dir, parts.handoffs.bell.ring, interval_s=interval_s)
        await nursery.start(watching)
        await nursery.start(parts.handoffs.run)
        sources = [PoolManagerSource(url, settings.token, registry) for url in settings.pool_managers]
        for source in sources:
            nursery.start_soon(source.run)
        nursery.start_soon(_note_sync, registry, sources)
    nursery.start_soon(keep_status, parts.dispatcher, service.notifier)


async def _note_sync(registry: Registry, sources: list[PoolManagerSource]) -> None:
    """From now on a pool that nobody knows does not exist."""
    with trio.move_on_after(SYNC_LIMIT_S):
        for source in sources:
            await source.asked.wait()
    registry.synced = True


async def _start_serving(parts: Parts, service: Service, nursery: trio.Nursery) -> None:
    settings = parts.settings
    address, metrics = settings.address, parts.dispatcher.metrics.registry
    app = create_app("queen-rbee", partial(unready, parts.dispatcher), metrics)
    add_views(app, parts.dispatcher, parts.tasks)
    add_scan(app, parts.handoffs)
    hot = HotHandlers(parts.dispatcher, parts.tasks).routes()
    api = listeners.tcp(service, "api", address, "HTTP API", settings.address_variable)
    metrics_address = Host(address.host, settings.metrics_port)
    scrape = listeners.tcp(service, "metrics", metrics_address, "metrics", "PROMETHEUS_METRICS_PORT")
    local = listeners.local(service, settings.runtime_dir.parent / "queen-rbee.sock")
    listeners.say_access(address, settings.token)
    start = partial(serve, shutdown=service.stop, drain_s=DRAIN_S + SERVING_MARGIN_S)
    await nursery.start(start, Gate(app, Access(settings.token, settings.auth_optional), hot), api)
    await nursery.start(start, Gate(app, Access(), hot), local)
    await nursery.start(start, for_metrics(metrics_app("queen-rbee", metrics), settings.token), scrape)


async def _drain(parts: Parts) -> None:
    """Take nothing more in, let what runs and waits end within DRAIN_S seconds; the rest is told to try again."""
    parts.tasks.close()
    emit(events.DAEMON_STOPPING, daemon="queen-rbee", detail=summary(parts.dispatcher))
    with trio.move_on_after(DRAIN_S):
        await parts.dispatcher.finish()
    parts.dispatcher.abandon()

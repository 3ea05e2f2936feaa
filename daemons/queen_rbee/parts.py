"""Build and wire the daemon's components."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llama_orch.bell import Bell
from llama_orch.contracts.errors import ErrorCode
from llama_orch.engines.connections import engine_connections
from llama_orch.engines.wire.adapters import adapters
from llama_orch.http.tls.current import NO_TLS, CurrentTls
from llama_orch.spool import SpoolReader
from queen_rbee.batches.batches import Batches
from queen_rbee.catalog.catalog import Catalog
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.dispatch.circuits import Circuits
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.health_checks import is_healthy
from queen_rbee.dispatch.hop import DIRECT, Hop, node_connections
from queen_rbee.dispatch.outages import Outages
from queen_rbee.dispatch.placer import QueuePlacer
from queen_rbee.dispatch.promises import Promises
from queen_rbee.dispatch.queue import AdmissionQueue, Policy
from queen_rbee.dispatch.runs import Runs
from queen_rbee.dispatch.stalls import DEFAULT_LIMITS, StallLimits
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.fleet.managers import PoolManagers
from queen_rbee.fleet.operations import Operations
from queen_rbee.intake.backpressure import Backpressure
from queen_rbee.intake.intake import Intake
from queen_rbee.keys.keyring import Keyring
from queen_rbee.live.live import Live
from queen_rbee.metrics import Metrics
from queen_rbee.pools.candidates import Demand
from queen_rbee.pools.registry import PoolRegistry
from queen_rbee.pools.strategies import StrategyName
from queen_rbee.prefixes.routing import PrefixRouting
from queen_rbee.residency.keeper import Keeper
from queen_rbee.residency.operators import OperatorLoads
from queen_rbee.residency.reloading import OperatorReloads
from queen_rbee.response_store import ResponseStore
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.settings import QueenSettings
from queen_rbee.shared.in_process import in_process
from queen_rbee.shared.protocol import SharedState
from queen_rbee.sources.handoffs import HandoffSource
from queen_rbee.store.protocol import Store
from queen_rbee.tasks.artifacts import Artifacts
from queen_rbee.tasks.book import TaskBook
from queen_rbee.tasks.task import Task
from queen_rbee.waking.waker import Waker

POOL_WAIT_S = 600.0
DAY_S = 86_400


@dataclass(frozen=True)
class TaskParts:
    """The components that handle tasks, from admission to accounting. None of them runs yet."""

    store: Store
    shared: SharedState
    registry: PoolRegistry
    metrics: Metrics
    catalog: Catalog
    sessions: Sessions
    artifacts: Artifacts
    book: TaskBook
    forecast: Forecast
    accounting: Accounting
    hop: Hop
    queue: AdmissionQueue[Task]
    promises: Promises[Demand]
    placer: QueuePlacer
    circuits: Circuits
    runs: Runs
    dispatcher: Dispatcher
    intake: Intake
    keys: Keyring


@dataclass(frozen=True)
class Parts(TaskParts):
    """All components. `handoffs` is None in CLOUD_PROFILE."""

    settings: QueenSettings
    fleet: Fleet
    operations: Operations
    keeper: Keeper
    loads: OperatorLoads
    waker: Waker
    reloads: OperatorReloads
    live: Live
    batches: Batches
    responses: ResponseStore
    handoffs: HandoffSource | None
    tls: CurrentTls = NO_TLS


def build(settings: QueenSettings, store: Store, directory: Path, tls: CurrentTls = NO_TLS) -> Parts:
    """Build all components over `store`, which the caller keeps open while they run. Files are kept in `directory`."""
    tasks = build_task_parts(
        store,
        capacity=settings.capacity,
        policy=settings.policy,
        strategy=settings.placement,
        prefix_routing=settings.prefix_routing,
        hop=Hop(settings.token, node_connections(), tls, engine_connections()),
        pool_wait_s=settings.pool_wait_ms / 1000,
        model_dirs=settings.model_dirs,
    )
    registry, metrics, displace = tasks.registry, tasks.metrics, tasks.runs.displace
    fleet = Fleet(
        registry, tasks.shared.nodes, metrics, displace, settings.node_timeout_ms, float(settings.stale_check_s)
    )
    urls = () if settings.cloud_profile else settings.pool_managers
    managers = PoolManagers(fleet, registry, urls, settings.token, tls)
    operations = Operations(registry, managers, displace)
    keeper = Keeper(registry, tasks.queue, tasks.promises, managers, metrics)
    tasks.forecast.arrival = keeper.arrival
    tasks.dispatcher.on_start = keeper.started
    waker = Waker(
        fleet,
        registry,
        tasks.queue,
        operations,
        metrics,
        wanted=lambda: keeper.wanted,
        drop=partial(_drop_stranded, tasks.dispatcher),
        limit_s=settings.wake_timeout_ms / 1000,
        target=settings.wake_address,
    )
    fleet.may_sleep = waker.may_sleep
    return Parts(
        **vars(tasks),
        settings=settings,
        fleet=fleet,
        operations=operations,
        keeper=keeper,
        loads=OperatorLoads(registry, keeper, operations),
        waker=waker,
        reloads=OperatorReloads(registry, keeper, operations),
        live=Live(registry, fleet, tasks.queue, tasks.book, tasks.forecast, operations, tasks.catalog),
        batches=Batches(directory, settings.files_quota_mb << 20, settings.files_keep_days * DAY_S),
        responses=ResponseStore(settings.response_store_bytes, settings.response_store_s),
        handoffs=_handoff_source(settings, registry, metrics),
        tls=tls,
    )


def _drop_stranded(dispatcher: Dispatcher, task: Task, reason: str, retry_ms: int) -> None:
    dispatcher.drop(task, ErrorCode.POOL_UNREADY, reason, retriable=True, retry_after_ms=retry_ms)


def build_task_parts(
    store: Store,
    *,
    capacity: int,
    policy: Policy,
    strategy: StrategyName,
    prefix_routing: bool = True,
    hop: Hop = DIRECT,
    limits: StallLimits = DEFAULT_LIMITS,
    pool_wait_s: float = POOL_WAIT_S,
    model_dirs: Sequence[Path] = (),
) -> TaskParts:
    """`capacity` bounds the queue. `pool_wait_s` is how long a task waits while no replica serves it."""
    bell, metrics, book, sessions, artifacts = Bell(), Metrics(), TaskBook(), Sessions(store), Artifacts(store)
    shared = in_process(store)
    registry = PoolRegistry(bell, adapters(), shared.leases)
    catalog = Catalog(store, registry.effective_pools, metrics, registry.withhold, directories=model_dirs)
    forecast = Forecast(registry)
    accounting = Accounting(book, metrics, forecast, store, sessions, catalog, artifacts)
    keys = Keyring()
    metrics.keys.keyring = keys
    queue: AdmissionQueue[Task] = AdmissionQueue(capacity, policy, shares=keys.shares)
    outages: Outages[Demand] = Outages(pool_wait_s)
    promises: Promises[Demand] = Promises()
    circuits = Circuits(registry, metrics, partial(is_healthy, hop=hop, metrics=metrics))
    prefixes = PrefixRouting(registry, metrics, enabled=prefix_routing)
    placer = QueuePlacer(queue, registry, sessions, strategy, prefixes, bell)
    runs = Runs(registry, adapters(), accounting, forecast, sessions, circuits, placer, limits, hop, pool_wait_s)
    dispatcher = Dispatcher(
        queue, registry, placer, runs, circuits, outages, promises, forecast, accounting, metrics, bell
    )
    backpressure = Backpressure(queue, forecast, outages, promises, metrics)
    intake = Intake(
        queue,
        placer,
        dispatcher,
        backpressure,
        registry,
        catalog,
        sessions,
        forecast,
        book,
        shared.tasks,
        metrics,
        keys,
    )
    return TaskParts(
        store=store,
        shared=shared,
        registry=registry,
        metrics=metrics,
        catalog=catalog,
        sessions=sessions,
        artifacts=artifacts,
        book=book,
        forecast=forecast,
        accounting=accounting,
        hop=hop,
        queue=queue,
        promises=promises,
        placer=placer,
        circuits=circuits,
        runs=runs,
        dispatcher=dispatcher,
        intake=intake,
        keys=keys,
    )


def _handoff_source(settings: QueenSettings, registry: PoolRegistry, metrics: Metrics) -> HandoffSource | None:
    if settings.profile != "home":
        return None
    spool = SpoolReader(settings.runtime_dir, moves_bad=False)
    return HandoffSource(spool, registry, metrics, Bell(), settings.watch_interval_ms / 1000)

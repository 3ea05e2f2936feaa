"""The queen's one of each, connected: what belongs to whom is decided here and nowhere else."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llama_orch.bell import Bell
from llama_orch.http.client.idle_connections import IdleConnections
from llama_orch.http.tls.tls import CLEAR, Tls
from llama_orch.spool import SpoolReader
from queen_rbee.catalog.catalog import Catalog
from queen_rbee.dispatch.accounting import Accounting
from queen_rbee.dispatch.dispatcher import Dispatcher
from queen_rbee.dispatch.forecast import Forecast
from queen_rbee.dispatch.hop import Hop
from queen_rbee.dispatch.queue import AdmissionQueue
from queen_rbee.engines import ADAPTERS
from queen_rbee.fleet.fleet import Fleet
from queen_rbee.fleet.managers import Managers
from queen_rbee.fleet.operations import Operations
from queen_rbee.intake.intake import Intake
from queen_rbee.metrics import Metrics
from queen_rbee.pools.registry import Registry
from queen_rbee.sessions.sessions import Sessions
from queen_rbee.settings import QueenSettings
from queen_rbee.sources.handoffs import HandoffSource
from queen_rbee.store.protocol import Store
from queen_rbee.tasks.artifacts import Artifacts
from queen_rbee.tasks.book import TaskBook


@dataclass(frozen=True)
class Parts:
    """All parts; none of them runs. `handoffs` is None in CLOUD_PROFILE."""

    settings: QueenSettings
    store: Store
    dispatcher: Dispatcher
    handoffs: HandoffSource | None
    fleet: Fleet
    operations: Operations
    tls: Tls = CLEAR

    @cached_property
    def intake(self) -> Intake:
        """The one way in."""
        return Intake(self.dispatcher, self.store)

    @property
    def registry(self) -> Registry:
        """The pools that are known."""
        return self.dispatcher.registry

    @property
    def accounting(self) -> Accounting:
        """What remains of tasks: also the way to sessions, catalog and artifacts."""
        return self.dispatcher.accounting


def build(settings: QueenSettings, store: Store, tls: Tls = CLEAR) -> Parts:
    """All parts over `store`, which the caller keeps open for as long as they run."""
    bell, metrics = Bell(), Metrics()
    registry = Registry(bell, ADAPTERS)
    dispatcher = Dispatcher(
        queue=AdmissionQueue(settings.capacity, settings.policy),
        registry=registry,
        accounting=books(store, registry, metrics, settings.model_dirs),
        adapters=ADAPTERS,
        strategy=settings.placement,
        bell=bell,
        hop=Hop(settings.token, IdleConnections(), tls.client),
        pool_wait_s=settings.pool_wait_ms / 1000,
    )
    fleet = Fleet(
        registry, store, metrics, dispatcher.runs.take_place, settings.node_timeout_ms, float(settings.stale_check_s)
    )
    urls = () if settings.cloud_profile else settings.pool_managers
    managers = Managers(fleet, registry, urls, settings.token, tls.client)
    operations = Operations(registry, managers, dispatcher.runs.take_place)
    return Parts(settings, store, dispatcher, _handoffs(settings, registry, metrics), fleet, operations, tls)


def books(store: Store, registry: Registry, metrics: Metrics, model_dirs: Sequence[Path] = ()) -> Accounting:
    """All that tasks are entered in, empty."""
    return Accounting(
        book=TaskBook(),
        metrics=metrics,
        forecast=Forecast(registry),
        store=store,
        sessions=Sessions(store),
        catalog=Catalog(store, registry.believed, metrics, registry.withhold, directories=model_dirs),
        artifacts=Artifacts(store),
    )


def _handoffs(settings: QueenSettings, registry: Registry, metrics: Metrics) -> HandoffSource | None:
    if settings.profile != "home":
        return None
    spool = SpoolReader(settings.runtime_dir, moves_bad=False)
    return HandoffSource(spool, registry, metrics, Bell(), settings.watch_interval_ms / 1000)

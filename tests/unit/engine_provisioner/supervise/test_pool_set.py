"""The set of pools follows the files: kept pools are not touched, and nothing of a removed one remains."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest

from engine_provisioner.engine import EngineCommand, LocalModel
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.launch.launcher import LivenessCheck, RunningEngine
from engine_provisioner.launch.ports import Ports
from engine_provisioner.memory.loads import Loads
from engine_provisioner.report.handoffs import path_of
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.sources.file import local_path
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.supervise import change, health, pool_set
from engine_provisioner.supervise.health import Condition, HealthCheck
from engine_provisioner.supervise.pool_set import PoolSet
from engine_provisioner.supervise.preparation import SharedResources
from llama_orch.contracts.pools import PoolState
from llama_orch.settings.types import GpuMask
from tests.unit.engine_provisioner.fetching import fetcher
from tests.unit.engine_provisioner.gguf_files import gguf
from tests.unit.engine_provisioner.pools import pool
from tests.unit.engine_provisioner.supervise.test_managed_pool import FakeAcquirer, FakeLauncher
from tests.unit.engine_provisioner.waiting import until


class FilesAcquirer(FakeAcquirer):
    """Returns the model file of the pool, which may be any GGUF file."""

    async def model(self, pool: Pool, *_arguments: object) -> LocalModel:
        assert pool.model is not None
        path = local_path(pool.model.ref)
        if not await trio.Path(path).exists():
            raise ProvisioningFailure(f"the model {path} cannot be read")
        return LocalModel(pool.model.ref, path, 1)


class RecordingLauncher(FakeLauncher):
    """Records what it starts and removes. A removal takes a while, so that a start that does not wait overtakes it."""

    def __init__(self, handoff: Path) -> None:
        super().__init__(handoff, None)
        self.removed: list[str] = []
        self.order: list[str] = []

    @asynccontextmanager
    async def run(self, pool_id: str, command: EngineCommand, is_alive: LivenessCheck) -> AsyncIterator[RunningEngine]:
        self.order.append("run")
        async with super().run(pool_id, command, is_alive) as engine:
            yield engine

    async def remove(self, pool_id: str) -> None:
        self.order.append("remove")
        with trio.move_on_after(0.3):
            await until(lambda: self.order[-1] != "remove")
        self.order.append("removed")
        self.removed.append(pool_id)


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(*_arguments: object) -> HealthCheck:
        return HealthCheck(Condition.UP)

    monkeypatch.setattr(health, "check", check)
    monkeypatch.setattr(pool_set, "LAST_REPORT_S", 0.0)
    monkeypatch.setattr(change, "CLAIM_S", 0.05)


def model_file(directory: Path, name: str) -> str:
    """Return the reference of a new GGUF file."""
    path = directory / f"{name}.gguf"
    path.write_bytes(gguf())
    return f"file:{path}"


class Site:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.registry = CollectorRegistry()
        self.reports = PoolReports(directory / "status", self.registry)
        self.launcher = RecordingLauncher(path_of(directory, "default"))
        self.model = model_file(directory, "model")
        self.pools = PoolSet(
            SharedResources(
                gpu_mask=GpuMask(()),
                cache_ram_mib=0,
                acquirer=FilesAcquirer(fetcher(directory)),
                launcher=self.launcher,
                ports=Ports([], {}),
                loads=Loads(directory),
            ),
            self.reports,
            directory,
        )

    def pool(self, **keys: Any) -> Pool:
        """Return a pool with the model file of this site."""
        return pool(**{"model": self.model, **keys})

    def is_ready(self, pool_id: str) -> Callable[[], bool]:
        return lambda: (report := self.reports.report(pool_id)) is not None and report.state is PoolState.READY


@asynccontextmanager
async def running(directory: Path, kind: type[Site] = Site) -> AsyncIterator[Site]:
    (directory / "status").mkdir()
    site = kind(directory)
    async with trio.open_nursery() as nursery:
        await nursery.start(site.pools.run)
        yield site
        nursery.cancel_scope.cancel()


async def test_kept_pool_is_the_same_and_others_follow(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        await site.pools.apply([site.pool(id="kept"), site.pool(id="other")])
        await until(site.is_ready("other"))
        kept, other = site.pools.wanted("kept"), site.pools.wanted("other")
        found = await site.pools.apply([site.pool(id="kept", slots=1), site.pool(id="other", slots=2)])
        assert (found.kept, found.changed) == (("kept",), ("other",))
        assert site.pools.wanted("kept") is kept
        await until(lambda: site.pools.wanted("other") is not other and site.is_ready("other")())


async def test_nothing_of_a_removed_pool_remains(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        await site.pools.apply([site.pool()])
        await until(site.is_ready("default"))
        await site.pools.apply([])
        await until(lambda: site.launcher.removed == ["default"] and not [*(tmp_path / "status").iterdir()])
        assert not path_of(tmp_path, "default").exists()
        assert 'pool_id="default"' not in generate_latest(site.registry).decode()
        assert site.reports.summary().startswith("no pools")


async def test_changes_in_quick_succession_end_with_the_last(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        for slots in (1, 2, 3):
            await site.pools.apply([site.pool(slots=slots)])
            await site.pools.apply([])
        await site.pools.apply([site.pool(slots=5)])
        await until(site.is_ready("default"))
        report = site.reports.report("default")
        assert report is not None
        assert report.residency is not None
        assert (report.residency.slots_total, report.removed) == (5, False)


async def test_pool_added_again_begins_after_its_removal(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        await site.pools.apply([site.pool()])
        await until(site.is_ready("default"))
        await site.pools.apply([])
        await site.pools.apply([site.pool()])
        await until(lambda: len(site.launcher.order) == 4)
        assert site.launcher.order == ["run", "remove", "removed", "run"]


async def test_pool_that_was_loaded_stays_wanted_when_it_changes(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        await site.pools.apply([site.pool(preload=False)])
        site.pools.wanted("default").load()
        await site.pools.apply([site.pool(preload=False, slots=2)])
        assert site.pools.wanted("default").loaded


async def test_engine_of_a_pool_that_becomes_external_is_stopped(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        await site.pools.apply([site.pool()])
        external = {"mode": "external", "url": "http://127.0.0.1:1"}
        await site.pools.apply([site.pool(provisioning=external)])
        await until(lambda: site.launcher.removed == ["default"])

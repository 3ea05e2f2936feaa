"""A changed pool is prepared while it serves; then its engine is replaced, or the former one goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine_provisioner.engine import EngineCommand
from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.launch.launcher import LivenessCheck, RunningEngine
from engine_provisioner.report.handoffs import path_of
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.supervise import change
from engine_provisioner.supervise.pool_set import ReloadRunning
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.reloads import PoolReload, ReloadState
from tests.unit.engine_provisioner.supervise.test_managed_pool import FakeLauncher
from tests.unit.engine_provisioner.supervise.test_pool_set import Site, healthy, model_file, running
from tests.unit.engine_provisioner.waiting import until

__all__ = ["healthy"]


class PickyLauncher(FakeLauncher):
    """Cannot start engines whose model is called broken. `served` has the models of those that it has started."""

    def __init__(self, handoff: Path) -> None:
        super().__init__(handoff, None)
        self.served: list[str] = []

    @asynccontextmanager
    async def run(self, pool_id: str, command: EngineCommand, is_alive: LivenessCheck) -> AsyncIterator[RunningEngine]:
        model = next(Path(word).stem for word in command.argv if word.endswith(".gguf"))
        if model == "broken":
            raise ProvisioningFailure("the engine ended with status 1: bad tensors", retry=Retry.RESTART)
        self.served.append(model)
        async with super().run(pool_id, command, is_alive) as engine:
            yield engine


class Changing(Site):
    """A site with the pool `default`, whose models are files."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.picky = PickyLauncher(path_of(directory, "default"))
        object.__setattr__(self.pools._shared, "launcher", self.picky)
        self.kept: list[str] = []

    def with_model(self, name: str) -> Pool:
        return self.pool(model=model_file(self.directory, name))

    def reload(self, target: Pool, reload_id: str = "one") -> None:
        self.pools.reload(target, reload_id, lambda: self.kept.append(reload_id))

    @property
    def reloaded(self) -> PoolReload | None:
        report = self.reports.report("default")
        return report.reload if report else None

    async def until(self, state: ReloadState) -> PoolReload:
        await until(lambda: self.reloaded is not None and self.reloaded.state is state)
        assert self.reloaded is not None
        return self.reloaded


@asynccontextmanager
async def ready_pool(directory: Path) -> AsyncIterator[Changing]:
    async with running(directory, Changing) as site:
        assert isinstance(site, Changing)
        await site.pools.apply([site.pool()])
        await until(site.is_ready("default"))
        yield site


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A staged change waits for the queen."""
    monkeypatch.setattr(change, "CLAIM_S", 60.0)


async def test_reload_replaces_the_engine_and_is_kept(tmp_path: Path) -> None:
    async with ready_pool(tmp_path) as site:
        site.reload(site.with_model("other"))
        ended = await site.until(ReloadState.DONE)
        assert (ended.reload_id, ended.detail, ended.error) == ("one", "its model is other", None)
        assert site.is_ready("default")()
        assert (site.picky.served, site.kept) == (["model", "other"], ["one"])


async def test_reload_with_the_same_model_starts_a_new_engine(tmp_path: Path) -> None:
    async with ready_pool(tmp_path) as site:
        site.reload(site.pool())
        await site.until(ReloadState.DONE)
        assert site.picky.served == ["model", "model"]


async def test_old_engine_serves_until_the_pool_is_drained(tmp_path: Path, patient: None) -> None:
    async with ready_pool(tmp_path) as site:
        site.reload(site.with_model("other"))
        await site.until(ReloadState.STAGED)
        assert site.is_ready("default")()
        found = site.pools.change("default", "one")
        assert found is not None
        found.claim(drained=False)
        assert (found.state, site.picky.calls) == (ReloadState.STAGED, ["run"])
        found.claim(drained=True)
        await site.until(ReloadState.DONE)


async def test_failed_preparation_changes_nothing(tmp_path: Path) -> None:
    async with ready_pool(tmp_path) as site:
        site.reload(site.pool(model="file:/srv/absent.gguf"))
        ended = await site.until(ReloadState.FAILED)
        assert ended.error == "the model /srv/absent.gguf cannot be read"
        assert (site.picky.calls, site.kept) == (["run"], [])
        assert site.is_ready("default")()


async def test_model_without_a_usable_header_is_refused(tmp_path: Path) -> None:
    async with ready_pool(tmp_path) as site:
        target = site.with_model("other")
        (tmp_path / "other.gguf").write_bytes(b"GGUF and nothing else")
        site.reload(target)
        ended = await site.until(ReloadState.FAILED)
        assert "has no usable header" in (ended.error or "")
        assert site.picky.calls == ["run"]


async def test_old_engine_returns_if_the_new_one_fails(tmp_path: Path) -> None:
    async with ready_pool(tmp_path) as site:
        site.reload(site.with_model("broken"))
        ended = await site.until(ReloadState.FAILED)
        assert ended.error == "the engine ended with status 1: bad tensors"
        assert ended.detail == "the former engine serves again"
        assert site.is_ready("default")()
        assert (site.picky.served, site.kept) == (["model", "model"], [])


async def test_unloaded_pool_gets_its_model_without_a_start(tmp_path: Path) -> None:
    async with running(tmp_path, Changing) as site:
        assert isinstance(site, Changing)
        await site.pools.apply([site.pool(preload=False)])
        await until(lambda: (found := site.reports.report("default")) is not None and found.state is PoolState.UNLOADED)
        site.reload(site.with_model("other").model_copy(update={"preload": False}))
        await site.until(ReloadState.DONE)
        report = site.reports.report("default")
        assert report is not None
        assert report.state is PoolState.UNLOADED
        assert report.residency is not None
        assert report.residency.model is not None
        assert report.residency.model.id.endswith("other.gguf")
        assert site.picky.served == []


async def test_reload_is_called_off_while_it_is_staged(tmp_path: Path, patient: None) -> None:
    async with ready_pool(tmp_path) as site:
        site.reload(site.with_model("other"))
        await site.until(ReloadState.STAGED)
        found = site.pools.change("default", "one")
        assert found is not None
        found.scope.cancel()
        await site.until(ReloadState.CANCELLED)
        assert site.is_ready("default")()
        assert site.picky.calls == ["run"]
        await until(lambda: site.pools.change("default", "one") is None)


async def test_second_reload_is_refused_while_one_runs(tmp_path: Path, patient: None) -> None:
    async with ready_pool(tmp_path) as site:
        site.reload(site.with_model("other"))
        with pytest.raises(ReloadRunning):
            site.reload(site.pool(), "two")
        site.reload(site.pool(), "one")  # the same one, asked for again


async def test_other_files_do_not_disturb_a_reload(tmp_path: Path, patient: None) -> None:
    async with ready_pool(tmp_path) as site:
        site.reload(site.with_model("other"))
        await site.until(ReloadState.STAGED)
        found = await site.pools.apply([site.pool(), site.pool(id="new")])
        assert (found.kept, found.added) == (("default",), ("new",))
        assert site.pools.change("default", "one") is not None


async def test_files_that_change_back_call_a_change_off(tmp_path: Path, patient: None) -> None:
    async with ready_pool(tmp_path) as site:
        await site.pools.apply([site.with_model("other")])
        await site.until(ReloadState.STAGED)
        assert (await site.pools.apply([site.pool()])).changed == ("default",)
        await site.until(ReloadState.CANCELLED)
        assert site.picky.calls == ["run"]


async def test_files_with_a_broken_model_are_tried_once(tmp_path: Path) -> None:
    async with ready_pool(tmp_path) as site:
        broken = site.with_model("broken")
        await site.pools.apply([broken])
        await site.until(ReloadState.FAILED)
        assert (await site.pools.apply([broken, site.pool(id="new")])).kept == ("default",)
        assert (await site.pools.apply([site.with_model("other")])).changed == ("default",)
        await site.until(ReloadState.DONE)


async def test_pool_is_removed_while_it_is_changed(tmp_path: Path, patient: None) -> None:
    async with ready_pool(tmp_path) as site:
        site.reload(site.with_model("other"))
        await site.until(ReloadState.STAGED)
        await site.pools.apply([])
        await until(lambda: not [*(tmp_path / "status").iterdir()])
        assert site.picky.served == ["model"]

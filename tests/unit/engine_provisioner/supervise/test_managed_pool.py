"""Loading and unloading of a managed pool, and its end: a child engine is withdrawn first, a unit keeps its handoff."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from engine_provisioner.acquirer import Acquirer
from engine_provisioner.engine import EngineCommand, Image, ImageOrder, LocalModel, Program
from engine_provisioner.failures import ProvisioningFailure
from engine_provisioner.launch.launcher import LivenessCheck, Report, RunningEngine
from engine_provisioner.launch.ports import Ports
from engine_provisioner.memory.loads import Loads
from engine_provisioner.report.handoffs import path_of
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.step_deadline import StepDeadline
from engine_provisioner.supervise import health
from engine_provisioner.supervise.health import Condition, HealthCheck
from engine_provisioner.supervise.managed_pool import ManagedPool
from engine_provisioner.supervise.preparation import SharedResources
from engine_provisioner.supervise.wanted import Wanted
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from llama_orch.files.reachability import UnixUser
from llama_orch.settings.types import GpuMask
from tests.unit.engine_provisioner.fetching import fetcher
from tests.unit.engine_provisioner.pools import pool
from tests.unit.engine_provisioner.waiting import until
from tests.unit.recorded_spans import attributes, recorded_spans


class FakeEngine:
    """An engine that ends when it is stopped or crashes."""

    pid, adopted, cgroup = 1, False, None

    def __init__(self, launcher: "FakeLauncher", unit: str | None) -> None:
        self._launcher = launcher
        self.unit = unit
        self.ended = trio.Event()

    async def wait(self) -> None:
        await self.ended.wait()

    async def exit_message(self) -> str:
        await self._launcher.last_words.wait()
        return "the engine was killed by SIGKILL"

    async def stop(self) -> None:
        self._launcher.calls.append("stop")
        self._launcher.running = False
        self.ended.set()


class FakeLauncher:
    """Starts FakeEngines, and records whether the handoff file of the last one exists when it is left.

    `calls` are those that start and stop engines. `running`: a unit of an earlier run is there.
    """

    def __init__(self, handoff: Path, unit: str | None, running: bool = False) -> None:
        self._handoff = handoff
        self._unit = unit
        self.running = running
        self.announced_at_stop: bool | None = None
        self.calls: list[str] = []
        self.engine: FakeEngine | None = None
        self.last_words = trio.Event()

    def engine_user(self) -> UnixUser | None:
        return None

    async def provide_image(self, pool_id: str, order: ImageOrder, report: Report) -> Image:
        raise AssertionError("no pool here has a container")

    @asynccontextmanager
    async def run(self, pool_id: str, command: EngineCommand, is_alive: LivenessCheck) -> AsyncIterator[RunningEngine]:
        self.calls.append("run")
        self.engine = FakeEngine(self, self._unit)
        try:
            yield self.engine
        finally:
            self.announced_at_stop = self._handoff.exists()

    async def known_commands(self) -> dict[str, EngineCommand]:
        return {}

    async def known_pools(self) -> set[str]:
        return set()

    async def held_port(self, pool_id: str) -> int | None:
        return 18080 if self.running else None

    async def remove(self, pool_id: str) -> None:
        self.calls.append("remove")
        self.running = False


class FakeAcquirer(Acquirer):
    """Returns a program and a model that are already on disk."""

    async def check_here(self, *_arguments: object) -> None:
        return None

    async def program(self, *_arguments: object) -> Program:
        return Program(("/bin/true",), Path("/bin/true"))

    async def model(self, pool: Pool, *_arguments: object) -> LocalModel:
        return LocalModel("file:/srv/model.gguf", Path("/srv/model.gguf"), 1)


async def test_model_that_can_never_fit_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = ProvisioningFailure("the weights take more than the GPUs have")
    monkeypatch.setattr("engine_provisioner.supervise.preparation.too_large", lambda *_arguments: failure)
    (tmp_path / "status").mkdir()
    launcher = FakeLauncher(path_of(tmp_path, "default"), "unit")
    with trio.fail_after(10), pytest.raises(ProvisioningFailure, match="the weights take more"):
        await managed(pool(), tmp_path, launcher).run()
    assert launcher.calls == []


async def stopped_pool(directory: Path, unit: str | None) -> tuple[FakeLauncher, PoolState]:
    """Run a pool until it is ready, then stop as the daemon does; return the launcher and the last state."""
    spec, status = pool(), directory / "status/default.json"
    status.parent.mkdir()
    launcher = FakeLauncher(path_of(directory, spec.id), unit)
    runner = managed(spec, directory, launcher)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runner.run)
        await until(lambda: status.exists() and state_in(status) is PoolState.READY)
        nursery.cancel_scope.cancel()
    return launcher, state_in(status)


def managed(spec: Pool, directory: Path, launcher: FakeLauncher, wanted: Wanted | None = None) -> ManagedPool:
    shared = SharedResources(
        gpu_mask=GpuMask(()),
        cache_ram_mib=0,
        acquirer=FakeAcquirer(fetcher(directory)),
        launcher=launcher,
        ports=Ports([spec], {}),
        loads=Loads(directory),
    )
    reporter = PoolReporter(spec, PoolReports(directory / "status", CollectorRegistry()), directory)
    return ManagedPool(spec, shared, reporter, StepDeadline(spec.id), wanted or Wanted(True))


def state_in(status: Path) -> PoolState:
    return ProvisioningReport.model_validate_json(status.read_bytes()).state


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(*_arguments: object) -> HealthCheck:
        return HealthCheck(Condition.UP)

    monkeypatch.setattr(health, "check", check)


async def test_child_engine_is_withdrawn_before_it_is_stopped(tmp_path: Path) -> None:
    launcher, state = await stopped_pool(tmp_path, unit=None)
    assert (launcher.announced_at_stop, state) == (False, PoolState.OFFLINE)


async def test_child_engine_is_withdrawn_when_the_daemon_crashes(tmp_path: Path) -> None:
    spec, status = pool(), tmp_path / "status/default.json"
    status.parent.mkdir()
    launcher = FakeLauncher(path_of(tmp_path, spec.id), None)
    with pytest.RaisesGroup(RuntimeError):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(managed(spec, tmp_path, launcher).run)
            await until(lambda: status.exists() and state_in(status) is PoolState.READY)
            raise RuntimeError("a defect elsewhere")
    assert launcher.announced_at_stop is False


async def test_unit_stays_ready_when_the_daemon_stops(tmp_path: Path) -> None:
    launcher, state = await stopped_pool(tmp_path, unit="llama-engine@default.service")
    assert (launcher.announced_at_stop, state) == (True, PoolState.READY)


UNIT = "llama-engine@default.service"


class Loading:
    """A pool whose engine is loaded and unloaded, with its report."""

    def __init__(self, directory: Path, *, loaded: bool, unit: str | None = UNIT, running: bool = False) -> None:
        spec = pool()
        self._status = directory / "status/default.json"
        self._status.parent.mkdir()
        self.handoff = path_of(directory, spec.id)
        self.launcher = FakeLauncher(self.handoff, unit, running)
        self.wanted = Wanted(loaded)
        self.runner = managed(spec, directory, self.launcher, self.wanted)

    @property
    def report(self) -> ProvisioningReport:
        return ProvisioningReport.model_validate_json(self._status.read_bytes())

    async def until(self, state: PoolState) -> None:
        await until(lambda: self._status.exists() and self.report.state is state)


async def test_pool_is_loaded_and_unloaded_as_wanted(tmp_path: Path) -> None:
    loading = Loading(tmp_path, loaded=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loading.runner.run)
        await loading.until(PoolState.UNLOADED)
        assert loading.launcher.calls == []
        for _cycle in range(3):
            loading.wanted.load()
            await loading.until(PoolState.READY)
            assert loading.handoff.exists()
            loading.wanted.unload()
            await loading.until(PoolState.UNLOADED)
            assert not loading.handoff.exists()
        nursery.cancel_scope.cancel()
    assert loading.launcher.calls == ["run", "stop"] * 3


async def test_unloaded_pool_reports_its_residency(tmp_path: Path) -> None:
    loading = Loading(tmp_path, loaded=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loading.runner.run)
        await loading.until(PoolState.UNLOADED)
        residency = loading.report.residency
        assert residency is not None
        assert residency.model is not None
        assert residency.model.id == "file:/srv/model.gguf"
        assert (residency.device_mask, residency.load_s) == ("cpu", None)
        loading.wanted.load()
        await until(lambda: bool(loading.report.residency and loading.report.residency.load_s is not None))
        nursery.cancel_scope.cancel()


async def test_engine_of_an_earlier_run_is_wanted(tmp_path: Path) -> None:
    loading = Loading(tmp_path, loaded=False, running=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loading.runner.run)
        await loading.until(PoolState.READY)
        nursery.cancel_scope.cancel()
    assert loading.launcher.calls == ["run"]


async def test_engine_of_an_earlier_run_is_stopped_if_unwanted(tmp_path: Path) -> None:
    loading = Loading(tmp_path, loaded=False, running=True)
    loading.wanted.unload()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loading.runner.run)
        await loading.until(PoolState.UNLOADED)
        nursery.cancel_scope.cancel()
    assert loading.launcher.calls == ["remove"]


async def test_loading_is_interrupted_by_an_unload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(*_arguments: object) -> HealthCheck:
        return HealthCheck(Condition.LOADING, "loading the model")

    monkeypatch.setattr(health, "check", check)
    loading = Loading(tmp_path, loaded=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(loading.runner.run)
        await until(lambda: loading.launcher.engine is not None)
        loading.wanted.unload()
        await loading.until(PoolState.UNLOADED)
        nursery.cancel_scope.cancel()
    assert loading.launcher.calls == ["run", "stop"]


async def test_crash_is_reported_before_its_reason_is_known(tmp_path: Path) -> None:
    loading = Loading(tmp_path, loaded=True)
    with pytest.RaisesGroup(ProvisioningFailure):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loading.runner.run)
            await loading.until(PoolState.READY)
            assert loading.launcher.engine is not None
            loading.launcher.engine.ended.set()
            await loading.until(PoolState.STARTING)
            assert loading.report.detail == "the engine has ended; its last output is being read"
            assert not loading.handoff.exists()
            loading.launcher.last_words.set()


async def test_fetch_and_start_are_spans(tmp_path: Path) -> None:
    async with recorded_spans() as spans:
        loading = Loading(tmp_path, loaded=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(loading.runner.run)
            await loading.until(PoolState.READY)
            nursery.cancel_scope.cancel()
    assert [span.name for span in spans.all if span.parent is None] == ["llama_orch.provision", "llama_orch.start"]
    fetched = spans.children(spans.named("llama_orch.provision"))
    assert [attributes(span)["llama_orch.fetch.what"] for span in fetched] == ["engine", "model"]
    assert attributes(spans.named("llama_orch.start"))["llama_orch.pool.id"] == "default"

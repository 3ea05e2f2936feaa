"""The end of a managed pool: a child engine is withdrawn before it is stopped, a unit keeps its handoff."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from engine_provisioner.acquire.acquirer import Acquirer
from engine_provisioner.engine import EngineCommand, Image, ImageOrder, LocalModel, Program
from engine_provisioner.launch.launcher import LivenessCheck, Report, RunningEngine
from engine_provisioner.launch.ports import Ports
from engine_provisioner.report.handoffs import path_of
from engine_provisioner.report.pool_reporter import PoolReporter
from engine_provisioner.report.pool_reports import PoolReports
from engine_provisioner.spec.pool_spec import Pool
from engine_provisioner.spec.reachability import UnixUser
from engine_provisioner.step_deadline import StepDeadline
from engine_provisioner.supervise import health
from engine_provisioner.supervise.health import Condition, HealthCheck
from engine_provisioner.supervise.managed_pool import ManagedPool, SharedResources
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from llama_orch.settings.types import GpuMask
from tests.unit.engine_provisioner.pools import pool
from tests.unit.engine_provisioner.waiting import until


class FakeEngine:
    """An engine that never ends."""

    pid, adopted = 1, False

    def __init__(self, unit: str | None) -> None:
        self.unit = unit

    async def wait(self) -> None:
        await trio.sleep_forever()

    async def exit_message(self) -> str:
        return ""

    async def stop(self) -> None:
        return None


class FakeLauncher:
    """Starts a FakeEngine and records whether its handoff file exists when it is stopped."""

    def __init__(self, handoff: Path, unit: str | None) -> None:
        self._handoff = handoff
        self._unit = unit
        self.announced_at_stop: bool | None = None

    def engine_user(self) -> UnixUser | None:
        return None

    async def provide_image(self, pool_id: str, order: ImageOrder, report: Report) -> Image:
        raise AssertionError("no pool here has a container")

    @asynccontextmanager
    async def run(self, pool_id: str, command: EngineCommand, is_alive: LivenessCheck) -> AsyncIterator[RunningEngine]:
        try:
            yield FakeEngine(self._unit)
        finally:
            self.announced_at_stop = self._handoff.exists()

    async def known_commands(self) -> dict[str, EngineCommand]:
        return {}

    async def known_pools(self) -> set[str]:
        return set()

    async def held_port(self, pool_id: str) -> int | None:
        return None

    async def remove(self, pool_id: str) -> None:
        return None


class FakeAcquirer(Acquirer):
    """Returns a program and a model that are already on disk."""

    async def check_here(self, *_arguments: object) -> None:
        return None

    async def program(self, *_arguments: object) -> Program:
        return Program(("/bin/true",), Path("/bin/true"))

    async def model(self, *_arguments: object) -> LocalModel:
        return LocalModel("file:/srv/model.gguf", Path("/srv/model.gguf"), 1)


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


def managed(spec: Pool, directory: Path, launcher: FakeLauncher) -> ManagedPool:
    shared = SharedResources(
        gpu_mask=GpuMask(()),
        cache_ram_mib=0,
        acquirer=FakeAcquirer(directory),
        launcher=launcher,
        ports=Ports([spec], {}),
    )
    reporter = PoolReporter(spec, PoolReports(directory / "status", CollectorRegistry()), directory)
    return ManagedPool(spec, shared, reporter, StepDeadline(spec.id))


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

"""An idle machine is suspended after the configured time, with the queen's consent; work keeps it awake."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import trio
import trio.testing

from llama_orch.contracts.node_operations import NodeOperation
from llama_orch.contracts.pools import PoolState
from pool_managerd.cluster.agent import Agent
from pool_managerd.cluster.interfaces import Unwakeable
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.power.power import LOOK_S, POLL_S, REQUEST, RETRY_S, SUSPEND_S, Power, slept_s
from pool_managerd.power.sleep_lock import SleepLock
from pool_managerd.provisioner_client import ProvisionerClient
from tests.unit.pool_managerd.values import RESIDENCY, report

Clock = trio.testing.MockClock
AFTER_S = 300


@dataclass
class FakeAgent:
    """Answers like the queen: None agrees. `asleep` is what the queen believes."""

    refusal: Unwakeable | str | None = None
    asked_at: list[float] = field(default_factory=list)
    asleep: bool = False

    async def fall_asleep(self) -> Unwakeable | str | None:
        self.asked_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        self.asleep = self.refusal is None
        return self.refusal

    def wake_up(self) -> None:
        self.asleep = False


@dataclass
class FakeLock:
    held_for: str | None = None

    async def hold(self, why: str) -> None:
        self.held_for = why
        await trio.lowlevel.checkpoint()

    def release(self) -> None:
        self.held_for = None


@dataclass
class FakeProvisioner:
    async def operations(self) -> list[NodeOperation]:
        await trio.lowlevel.checkpoint()
        return []


@dataclass
class Scene:
    request: Path
    after_s: float | None = AFTER_S
    pools: NodePools = field(default_factory=NodePools)
    agent: FakeAgent = field(default_factory=FakeAgent)
    lock: FakeLock = field(default_factory=FakeLock)
    slept: float = 7.0

    def __post_init__(self) -> None:
        parts = cast(ProvisionerClient, FakeProvisioner()), cast(SleepLock, self.lock), cast(Agent, self.agent)
        self.power = Power(self.pools, *parts, self.request, self.after_s, lambda: self.slept)

    def report(self, state: PoolState) -> None:
        self.pools.set_reports({"default": report(state, residency=RESIDENCY)})

    async def requested(self) -> float:
        """Wait for a request; return when it came."""
        while not self.request.exists():  # noqa: ASYNC110 -- a file
            await trio.sleep(0.1)
        return trio.current_time()


@asynccontextmanager
async def scene(tmp_path: Path, **changes) -> AsyncIterator[Scene]:
    play = Scene(tmp_path / REQUEST, **changes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play.power.run)
        yield play
        nursery.cancel_scope.cancel()


async def test_idle_machine_is_suspended_after_the_time(autojump_clock: Clock, tmp_path: Path) -> None:
    async with scene(tmp_path) as play:
        assert AFTER_S <= await play.requested() <= AFTER_S + LOOK_S + 1
        assert play.agent.asleep


async def test_machine_is_never_suspended_without_the_setting(autojump_clock: Clock, tmp_path: Path) -> None:
    async with scene(tmp_path, after_s=None) as play:
        await trio.sleep(20 * 3600)
        assert play.agent.asked_at == []
        assert not play.request.exists()
        assert play.power.line is None


async def test_request_starts_the_time_anew(autojump_clock: Clock, tmp_path: Path) -> None:
    async with scene(tmp_path) as play:
        await trio.sleep(AFTER_S - 10)
        with play.pools.leases.held(("default", "r0"), lambda: None):
            await trio.sleep(0.01)  # shorter than LOOK_S
        await trio.sleep(AFTER_S - 10)
        assert play.agent.asked_at == []


@pytest.mark.parametrize("state", [PoolState.PROVISIONING, PoolState.STARTING])
async def test_load_keeps_the_machine_awake_and_locked(autojump_clock: Clock, tmp_path: Path, state: PoolState) -> None:
    async with scene(tmp_path) as play:
        play.report(state)
        await trio.sleep(10 * AFTER_S)
        assert (play.lock.held_for, play.power.line) == (
            "pool default is being loaded",
            "awake: pool default is being loaded",
        )
        assert play.agent.asked_at == []
        play.report(PoolState.UNLOADED)
        unloaded_at = trio.current_time()
        assert await play.requested() >= unloaded_at + AFTER_S - LOOK_S
        assert play.lock.held_for is None


async def test_lock_is_held_without_the_setting_too(autojump_clock: Clock, tmp_path: Path) -> None:
    async with scene(tmp_path, after_s=None) as play:
        play.report(PoolState.STARTING)
        await trio.sleep(2 * LOOK_S)
        assert play.lock.held_for == "pool default is being loaded"


async def test_queen_that_refuses_is_asked_again_later(autojump_clock: Clock, tmp_path: Path) -> None:
    async with scene(tmp_path) as play:
        play.agent.refusal = "the queen needs it"
        await trio.sleep(AFTER_S + 3 * RETRY_S)
        assert not play.request.exists()
        first, second = play.agent.asked_at[:2]
        assert RETRY_S <= second - first <= RETRY_S + 2 * LOOK_S


async def test_unwakeable_machine_says_why_once(
    autojump_clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as play:
        play.agent.refusal = Unwakeable("Wake-on-LAN is not enabled on eth0")
        await trio.sleep(AFTER_S + 10 * RETRY_S)
        assert not play.request.exists()
    assert [each.getMessage() for each in caplog.records if "Wake-on-LAN" in each.getMessage()] == [
        "this machine is not suspended when idle: Wake-on-LAN is not enabled on eth0"
    ]


async def test_work_that_came_meanwhile_stops_the_suspension(autojump_clock: Clock, tmp_path: Path) -> None:
    async with scene(tmp_path) as play:
        ask = play.agent.fall_asleep

        async def load_meanwhile() -> Unwakeable | str | None:
            play.report(PoolState.STARTING)
            return await ask()

        play.agent.fall_asleep = load_meanwhile  # type: ignore[method-assign]
        await trio.sleep(AFTER_S + 2 * LOOK_S)
        assert play.agent.asked_at
        assert not play.request.exists()
        assert not play.agent.asleep


async def test_queen_is_told_soon_after_the_machine_resumes(
    autojump_clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with scene(tmp_path) as play:
        await play.requested()
        play.request.unlink()  # llama-orch-suspend.service
        play.slept += 3600  # CLOCK_BOOTTIME goes on while trio's clock stands still
        resumed_at = trio.current_time()
        while play.agent.asleep:  # noqa: ASYNC110 -- a plain value
            await trio.sleep(0.1)
        assert trio.current_time() - resumed_at <= POLL_S + 0.2
        assert await play.requested() >= resumed_at + AFTER_S - LOOK_S
    assert "this machine was suspended for 3600 s" in caplog.text


async def test_refused_suspension_is_reported(
    autojump_clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as play:
        await play.requested()
        play.request.unlink()
        await trio.sleep(SUSPEND_S + 1)
        assert not play.agent.asleep
    assert f"this machine stays awake: it was not suspended within {SUSPEND_S:g} s" in caplog.text


async def test_request_that_nothing_takes_is_withdrawn(
    autojump_clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with scene(tmp_path) as play:
        await play.requested()
        await trio.sleep(SUSPEND_S + 1)
        assert not play.request.exists()
    assert "is llama-orch-suspend.path enabled?" in caplog.text


async def test_request_of_an_earlier_run_is_removed(autojump_clock: Clock, tmp_path: Path) -> None:
    (tmp_path / REQUEST).touch()
    async with scene(tmp_path) as play:
        await trio.sleep(1)
        assert not play.request.exists()


async def test_unwritable_directory_is_reported(
    autojump_clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    play = Scene(tmp_path / "absent" / REQUEST)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(play.power.run)
        await trio.sleep(AFTER_S + 2 * LOOK_S)
        nursery.cancel_scope.cancel()
    assert "cannot be written: No such file or directory" in caplog.text


def test_time_slept_does_not_decrease() -> None:
    first = slept_s()
    assert 0 <= slept_s() - first < 1

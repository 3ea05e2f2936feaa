"""Engines get time to load, survive missed health checks, and fail after a long silence."""

from collections.abc import Iterator
from itertools import chain, repeat

import pytest
import trio
import trio.testing

from engine_provisioner.supervise import health
from engine_provisioner.supervise.health import Condition, HealthCheck
from engine_provisioner.supervise.health_waits import (
    UNHEALTHY_S,
    WATCH_S,
    is_alive,
    until_healthy,
    until_silent,
    while_running,
)

UP = HealthCheck(Condition.UP)
LOADING = HealthCheck(Condition.LOADING, "loading")
SILENT = HealthCheck(Condition.SILENT, "no answer")
URL = "http://127.0.0.1:1"


class Engine:
    """An engine that ends when `exited` is set."""

    pid, unit, adopted, cgroup = 1, None, False, None

    def __init__(self) -> None:
        self.exited = trio.Event()

    async def wait(self) -> None:
        await self.exited.wait()

    async def exit_message(self) -> str:
        return ""

    async def stop(self) -> None:
        return None


def answering(monkeypatch: pytest.MonkeyPatch, *checks: HealthCheck) -> None:
    """Replace health.check: return each of `checks`, then the last one forever."""
    script: Iterator[HealthCheck] = chain(checks, repeat(checks[-1]))

    async def check(_url: str, _engine: str) -> HealthCheck:
        return next(script)

    monkeypatch.setattr(health, "check", check)


async def ignore_loading(_detail: str) -> None:
    return None


async def test_slow_loading_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    details = []

    async def on_loading(detail: str) -> None:
        details.append(detail)

    answering(monkeypatch, SILENT, *[LOADING] * 100, UP)
    assert await until_healthy(URL, "llamacpp", 600, on_loading)
    assert details == ["loading"] * 100
    assert trio.current_time() < 60


async def test_silent_engine_is_waited_for_until_the_limit(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    answering(monkeypatch, SILENT)
    assert not await until_healthy(URL, "llamacpp", 600, ignore_loading)
    assert trio.current_time() == pytest.approx(600, abs=1)


async def test_few_missed_checks_are_tolerated(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    answering(monkeypatch, *([UP] + [SILENT] * 8) * 5, SILENT)
    assert await until_silent(URL, "llamacpp", lambda: None) == "no answer"
    last_up = 37 * WATCH_S
    assert trio.current_time() == last_up + UNHEALTHY_S


@pytest.mark.parametrize(("checks", "alive"), [([SILENT, SILENT, UP], True), ([LOADING], True), ([SILENT], False)])
async def test_liveness_check_is_repeated(
    monkeypatch: pytest.MonkeyPatch, checks: list[HealthCheck], alive: bool
) -> None:
    answering(monkeypatch, *checks)
    assert await is_alive(URL, "llamacpp") is alive


async def test_exit_of_the_engine_ends_the_wait(autojump_clock: trio.testing.MockClock) -> None:
    async def work() -> str:
        await trio.sleep(3600)
        return "done"

    engine = Engine()
    engine.exited.set()
    assert await while_running(engine, work) is None


async def test_result_is_returned_while_the_engine_runs() -> None:
    async def work() -> str:
        return "done"

    assert await while_running(Engine(), work) == "done"

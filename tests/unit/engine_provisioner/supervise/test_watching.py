"""An engine is given its time to load, is not given up for being busy, and is given up for being silent for long."""

from collections.abc import Iterator
from itertools import chain, repeat

import pytest
import trio
import trio.testing

from engine_provisioner.supervise import health
from engine_provisioner.supervise.health import Condition, HealthCheck
from engine_provisioner.supervise.watching import (
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
    """An engine that ends when it is told."""

    pid, unit, adopted = 1, None, False

    def __init__(self) -> None:
        self.over = trio.Event()

    async def ended(self) -> None:
        await self.over.wait()

    async def last_words(self) -> str:
        return ""

    async def stop(self) -> None:
        return None


def answering(monkeypatch: pytest.MonkeyPatch, *checks: HealthCheck) -> None:
    """Let health checks return `checks` in order, then the last one forever."""
    script: Iterator[HealthCheck] = chain(checks, repeat(checks[-1]))

    async def check(_url: str, _engine: str) -> HealthCheck:
        return next(script)

    monkeypatch.setattr(health, "check", check)


async def told_nothing(_detail: str) -> None:
    return None


async def test_a_model_that_loads_for_long_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    told = []

    async def on_loading(detail: str) -> None:
        told.append(detail)

    answering(monkeypatch, SILENT, *[LOADING] * 100, UP)
    assert await until_healthy(URL, "llamacpp", 600, on_loading)
    assert told == ["loading"] * 100
    assert trio.current_time() < 60


async def test_an_engine_that_never_answers_is_waited_for_until_the_limit(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    answering(monkeypatch, SILENT)
    assert not await until_healthy(URL, "llamacpp", 600, told_nothing)
    assert trio.current_time() == pytest.approx(600, abs=1)


async def test_a_few_missed_looks_do_not_count_as_silence(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    answering(monkeypatch, *([UP] + [SILENT] * 8) * 5, SILENT)
    assert await until_silent(URL, "llamacpp", lambda: None) == "no answer"
    last_up = 37 * WATCH_S
    assert trio.current_time() == last_up + UNHEALTHY_S


@pytest.mark.parametrize(("looks", "alive"), [([SILENT, SILENT, UP], True), ([LOADING], True), ([SILENT], False)])
async def test_a_busy_engine_gets_another_chance_before_it_is_replaced(
    monkeypatch: pytest.MonkeyPatch, looks: list[HealthCheck], alive: bool
) -> None:
    answering(monkeypatch, *looks)
    assert await is_alive(URL, "llamacpp") is alive


async def test_the_end_of_the_engine_ends_the_wait(autojump_clock: trio.testing.MockClock) -> None:
    async def work() -> str:
        await trio.sleep(3600)
        return "done"

    engine = Engine()
    engine.over.set()
    assert await while_running(engine, work) is None


async def test_the_result_is_had_while_the_engine_runs_on() -> None:
    async def work() -> str:
        return "done"

    assert await while_running(Engine(), work) == "done"

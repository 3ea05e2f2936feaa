"""The health loop: immediate first probes, intervals, independence, never two probes of one engine at a time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from llama_orch.contracts.handoff import Handoff
from llama_orch.service.watchdog import Pulse
from pool_managerd.daemon import FIRST_PROBES_S
from pool_managerd.engines.health import FIRST_PROBE_S, HealthLoop
from pool_managerd.metrics import Metrics
from pool_managerd.pools.node_pools import NodePools
from pool_managerd.pools.replica import ProbeResult
from tests.unit.pool_managerd.values import GONE, LOADING, READY, found, handoff


@dataclass
class Script:
    """Scripted probe results by pool id, and when each engine was probed.

    An engine without results hangs. The others take `late_s` seconds for everything besides their health check.
    """

    answers: dict[str, list[ProbeResult]]
    late_s: float = 0.0
    probed: list[tuple[str, float]] = field(default_factory=list)

    async def __call__(self, handoff: Handoff, *, describe: bool, extras_s: float) -> ProbeResult:
        self.probed.append((handoff.pool_id, trio.current_time()))
        answers = self.answers.get(handoff.pool_id)
        if answers is None:
            await trio.sleep_forever()
        assert answers
        await trio.sleep(min(self.late_s, extras_s))
        return answers.pop(0) if len(answers) > 1 else answers[0]

    def times(self, pool_id: str) -> list[float]:
        """When the engine of `pool_id` was probed, in seconds after the first time."""
        times = [time for probed, time in self.probed if probed == pool_id]
        return [round(time - times[0], 3) for time in times]


@asynccontextmanager
async def watched(script: Script, *pool_ids: str) -> AsyncIterator[tuple[NodePools, HealthLoop, Pulse]]:
    registry = NodePools()
    for number, pool_id in enumerate(pool_ids):
        registry.take(found(pool_id=pool_id, port=18080 + number))
    health = HealthLoop(registry, Metrics(registry), script)
    pulse = Pulse("health", 5.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(health.run, pulse)
        yield registry, health, pulse
        nursery.cancel_scope.cancel()


async def test_ready_engine_is_probed_every_second(autojump_clock: trio.testing.MockClock) -> None:
    script = Script({"a": [READY]})
    async with watched(script, "a"):
        await trio.sleep(3.5)
    assert script.times("a") == [0.0, 1.0, 2.0, 3.0]


async def test_engine_is_probed_at_once_on_request(autojump_clock: trio.testing.MockClock) -> None:
    script = Script({"a": [READY], "b": [READY]})
    async with watched(script, "a", "b") as (_registry, health, _pulse):
        await trio.sleep(0.5)
        health.probe_now({"b"})
        await trio.sleep(0.25)
    assert (script.times("a"), script.times("b")) == ([0.0], [0.0, 0.5])


async def test_loading_engine_is_probed_10_times_a_second(autojump_clock: trio.testing.MockClock) -> None:
    script = Script({"a": [LOADING, LOADING, READY]})
    async with watched(script, "a") as (registry, _health, _pulse):
        await trio.sleep(0.25)
        assert registry.pools[0].ready
    assert script.times("a") == [0.0, 0.1, 0.2]


async def test_new_engine_is_probed_immediately(autojump_clock: trio.testing.MockClock) -> None:
    script = Script({"a": [READY], "b": [READY]})
    async with watched(script, "a") as (registry, health, _pulse):
        await trio.sleep(0.5)
        registry.take(found(pool_id="b", port=18099))
        health.bell.ring()
        await trio.testing.wait_all_tasks_blocked()
        assert registry.pool("b")
        assert script.probed[-1] == ("b", trio.current_time())


async def test_hanging_engine_does_not_delay_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script({"a": [READY]})
    async with watched(script, "a", "hangs"):
        await trio.sleep(10.5)
    assert len(script.times("a")) == 11
    assert len(script.times("hangs")) == 1


async def test_reannounced_engine_is_probed_despite_a_hanging_probe(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script({})
    async with watched(script, "a") as (registry, health, _pulse):
        await trio.sleep(0.5)
        script.answers["a"] = [READY]
        registry.take(found(pool_id="a"))
        health.bell.ring()
        await trio.testing.wait_all_tasks_blocked()
        assert registry.pools[0].ready


async def test_gone_engine_is_offline_after_3_probes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script({"a": [READY, GONE, GONE, GONE, READY]})
    async with watched(script, "a") as (registry, _health, _pulse):
        await trio.sleep(1.25)
        assert registry.pools[0].state.value == "offline"
        await trio.sleep(1.0)
        assert registry.pools[0].ready


async def test_late_slots_do_not_delay_readiness(
    autojump_clock: trio.testing.MockClock,
) -> None:
    script = Script({"a": [READY]}, late_s=2.0)
    async with watched(script, "a") as (registry, health, _pulse):
        assert await health.first_probe(handoff("a")) == READY
        await trio.sleep(FIRST_PROBES_S - FIRST_PROBE_S)
        assert registry.pools[0].ready
        await trio.sleep(10)
    assert script.times("a")[-1] - script.times("a")[-2] == pytest.approx(3.0)  # and once it is, they are waited for


async def test_pulse_beats_without_engines(autojump_clock: trio.testing.MockClock) -> None:
    async with watched(Script({})) as (_registry, _health, pulse):
        await trio.sleep(60)
        assert pulse.count >= 12

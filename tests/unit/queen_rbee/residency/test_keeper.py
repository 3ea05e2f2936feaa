"""Models are loaded when tasks wait for them, make room for each other, and are unloaded when idle."""

import random
from functools import partial

import pytest
import trio

from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import TaskRequest
from queen_rbee.dispatch.promises import GRACE_S
from queen_rbee.pools.candidates import demand_of
from queen_rbee.residency.plan import LOOK_AGAIN_S
from queen_rbee.tasks.task_trace import TaskTrace
from tests.unit.queen_rbee.residency.site import LOAD_S, UNLOAD_S, Site, running


async def settle(seconds: float = 0.0) -> None:
    await trio.sleep(seconds + 0.01)


async def test_request_loads_its_model_and_is_served(autojump_clock):
    async with running() as site:
        site.add("a")
        await site.request("a")
        assert site.history == ["load a", "serve a"]
        assert trio.current_time() == pytest.approx(LOAD_S + 1.0, abs=0.1)


async def test_load_carries_the_correlation_id_of_its_request(autojump_clock):
    async with running() as site:
        site.add("a", keep_alive_s=5.0)
        await site.request("a")
        await settle(5.0 + UNLOAD_S)
        assert site.history == ["load a", "serve a", "unload a"]
        assert site.causes == ["c", None], "no request caused the unload"


async def test_waiting_requests_share_one_load(autojump_clock):
    async with running() as site, trio.open_nursery() as clients:
        site.add("a")
        for _ in range(5):
            clients.start_soon(site.request, "a")
    assert site.history == ["load a", *["serve a"] * 5]


async def test_idle_model_is_unloaded_after_its_keep_alive(autojump_clock):
    async with running() as site:
        site.add("a", keep_alive_s=60.0)
        await site.request("a")
        await settle(59.0)
        assert site.loaded == {"a"}
        await settle(1.0 + UNLOAD_S)
        assert site.loaded == set()


@pytest.mark.parametrize(("keep_alive", "loaded_s"), [("10s", 10.0), (0, 0.0), ("2m", 120.0)])
async def test_keep_alive_of_a_request_counts(autojump_clock, keep_alive, loaded_s):
    async with running() as site:
        site.add("a", keep_alive_s=60.0)
        await site.request("a", keep_alive=keep_alive)
        await settle(max(0.0, loaded_s - 0.1))
        assert site.loaded == {"a"}
        await settle(0.1 + LOOK_AGAIN_S + UNLOAD_S)
        assert site.loaded == set()


async def test_keep_alive_for_ever(autojump_clock):
    async with running() as site:
        site.add("a", keep_alive_s=60.0)
        await site.request("a", keep_alive=-1)
        await settle(100_000.0)
        assert site.loaded == {"a"}


async def test_least_recently_used_model_makes_room(autojump_clock):
    async with running() as site:
        for name in "abcd":
            site.add(name)
        for name in "abcabd":
            await site.request(name)
        assert site.loaded == {"a", "b", "d"}
        assert "unload c" in site.history


async def test_busy_model_finishes_its_tasks_before_it_makes_room(autojump_clock):
    async with running(total=4) as site, trio.open_nursery() as clients:
        site.add("a")
        site.add("b")
        clients.start_soon(site.request, "a", 100.0)
        await settle(LOAD_S + 0.5)
        await site.request("b")
        assert trio.current_time() > 100.0
    assert site.history == ["load a", "serve a", "unload a", "load b", "serve b"]


async def test_stream_of_requests_cannot_starve_another_model(autojump_clock):
    async with running(total=4) as site, trio.open_nursery() as clients:
        site.add("a")
        site.add("b")

        async def keep_asking() -> None:
            while True:
                await site.request("a")

        for _ in range(3):
            clients.start_soon(keep_asking)
        await settle(20.0)
        with trio.fail_after(60.0):
            await site.request("b")
        clients.cancel_scope.cancel()


async def test_operators_load_and_unload(autojump_clock):
    async with running() as site:
        site.add("a")
        site.keeper.load(("a", ""))
        await settle(LOAD_S)
        assert site.loaded == {"a"}
        site.keeper.unload(("a", ""))
        await settle(UNLOAD_S)
        assert site.loaded == set()


async def test_unload_by_operator_waits_for_running_tasks(autojump_clock):
    async with running() as site, trio.open_nursery() as clients:
        site.add("a")
        clients.start_soon(site.request, "a", 50.0)
        await settle(LOAD_S + 1.0)
        site.keeper.unload(("a", ""))
        await settle(10.0)
        assert site.loaded == {"a"}
        await settle(50.0)
        assert site.loaded == set()


async def test_machine_that_does_not_answer_is_asked_again(autojump_clock):
    async with running() as site, trio.open_nursery() as clients:
        site.add("a")
        site.refusing.add("a")
        clients.start_soon(site.request, "a")
        await settle(2.0)
        assert site.history == []
        site.refusing.clear()
    assert site.history == ["load a", "serve a"]


async def test_failed_load_does_not_stop_others(autojump_clock):
    async with running(total=4) as site, trio.open_nursery() as clients:
        site.add("a")
        site.add("b")
        site.failing.add("a")
        clients.start_soon(site.request, "a")
        await settle(0.1)
        await site.request("b")
        clients.cancel_scope.cancel()
    assert site.history == ["load a", "load b", "serve b"]


async def test_pool_that_disappears_leaves_nothing_behind(autojump_clock):
    async with running() as site:
        site.add("a")
        site.keeper.load(("a", ""))
        await settle(0.1)
        site.pools.clear()
        site.registry.update("http://127.0.0.1:9200", 0, [])
        await settle(1.0)
        assert site.keeper._orders == {}
        assert site.registry.residents == set()
        site.nursery.cancel_scope.cancel()


async def test_drain_for_room_is_called_off_with_its_task(autojump_clock):
    async with running(total=4) as site, trio.open_nursery() as clients:
        site.add("a")
        site.add("b")
        clients.start_soon(site.request, "a", 40.0)
        await settle(LOAD_S + 10.0)
        with trio.move_on_after(15.0):
            await site.request("b")
        await site.request("a")
        assert trio.current_time() < 50.0
    assert site.history == ["load a", "serve a", "serve a"]


async def test_drain_for_room_goes_on_for_other_tasks(autojump_clock):
    async with running(total=4) as site, trio.open_nursery() as clients:
        site.add("a")
        site.add("b")
        clients.start_soon(site.request, "a", 40.0)
        await settle(LOAD_S + 10.0)
        clients.start_soon(site.request, "b")
        with trio.move_on_after(15.0):
            await site.request("b")
    assert site.history == ["load a", "serve a", "unload a", "load b", "serve b"]


async def test_cancelled_load_goes_back_to_unloaded(autojump_clock):
    async with running() as site:
        site.add("a")
        site.keeper.load(("a", ""))
        await settle(LOAD_S / 2)
        site.keeper.stop_load(("a", ""))
        await settle(LOAD_S + UNLOAD_S)
        assert site.history == ["load a", "unload a"]
        assert site.pools["a"].state is PoolState.UNLOADED


async def test_cancelled_load_goes_on_for_tasks_that_wait(autojump_clock):
    async with running() as site, trio.open_nursery() as clients:
        site.add("a")
        site.keeper.load(("a", ""))
        clients.start_soon(site.request, "a")
        await settle(LOAD_S / 2)
        site.keeper.stop_load(("a", ""))
    assert site.history == ["load a", "serve a"]


async def test_promised_model_is_loaded_and_kept_for_the_retry(autojump_clock):
    async with running(total=4) as site:
        site.add("a", keep_alive_s=0.0)
        demand = demand_of(TaskRequest(prompt="x", model_ref="a"))
        arrival = site.keeper.arrival(demand)
        assert arrival is None, "nothing is known yet"
        await settle()
        arrival = site.keeper.arrival(demand)
        assert arrival
        assert arrival.in_s == LOAD_S
        site.promises.add(demand, trio.current_time(), trio.current_time() + arrival.in_s)
        site.registry.ring_residency()
        await settle(arrival.in_s + GRACE_S / 2)
        assert site.loaded == {"a"}
        await settle(GRACE_S)
        assert site.loaded == set()


async def test_second_pool_is_loaded_while_the_first_is_busy(autojump_clock):
    async with running() as site, trio.open_nursery() as clients:
        for name in ("one", "two"):
            site.add(name, model="m")
        for _ in range(2):
            clients.start_soon(site.request, "m", 60.0)
        await settle(LOAD_S + 5.0)
        assert len(site.loaded) == 1
        await settle(10.0 + LOAD_S)
        assert site.loaded == {"one", "two"}


def evicted_unused(site: Site) -> list[str]:
    """The pools that were unloaded without having served since their load."""
    served: set[str] = set()
    found = []
    for event in site.history:
        verb, name = event.split()
        if verb == "load":
            served.discard(name)
        elif verb == "serve":
            served.add(name)
        elif name not in served:
            found.append(name)
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_twelve_models_on_a_gpu_that_holds_three(autojump_clock, seed):
    choose = random.Random(seed)
    names = "abcdefghijkl"
    async with running() as site:
        for name in names:
            site.add(name)
        async with trio.open_nursery() as clients:

            async def client() -> None:
                for _ in range(25):
                    await site.request(choose.choice(names), choose.uniform(0.1, 2.0))

            for _ in range(8):
                clients.start_soon(client)
        served = [event for event in site.history if event.startswith("serve")]
        loads = [event for event in site.history if event.startswith("load")]
        assert len(served) == 200
        assert evicted_unused(site) == []
        assert len(loads) < len(served)


class Waits(TaskTrace):
    """Keeps the loads that a task waited for."""

    def __init__(self) -> None:
        self.loads: list[float] = []

    def loaded(self, began_at: float, ended_at: float, *, submitted_at: float) -> None:
        self.loads += [ended_at - began_at] if ended_at > submitted_at else []


async def test_trace_has_the_load_that_its_task_waited_for(autojump_clock):
    first, second, later = Waits(), Waits(), Waits()
    async with running() as site:
        site.add("a")
        async with trio.open_nursery() as clients:
            clients.start_soon(partial(site.request, "a", trace=first))
            clients.start_soon(partial(site.request, "a", trace=second))
        await site.request("a", trace=later)
    assert first.loads == second.loads == [pytest.approx(LOAD_S, abs=0.1)]
    assert later.loads == []

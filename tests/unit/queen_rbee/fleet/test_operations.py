"""Drains: of a pool on one node or all, of a node; with progress, deadline and undo."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from pydantic import BaseModel

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.operations import DrainRequest, OperationState
from queen_rbee.fleet.managers import Manager, Managers
from queen_rbee.fleet.operations import CUT_S, KEPT, Operations, Target
from tests.unit.queen_rbee.fleet_rig import FleetRig, heartbeat, registration, snapshot

POOL, NODE = Target("p"), Target(node_id="n1")


class FakeManagers(Managers):
    """Pool-managerds that do what they are bid, and tell the queen of it at once."""

    def __init__(self, rig: FleetRig) -> None:
        super().__init__(rig.fleet, rig.registry, ())
        object.__setattr__(self, "bids", [])
        object.__setattr__(self, "deaf", False)
        object.__setattr__(self, "stays", set())

    async def bid(self, manager: Manager, path: str, body: BaseModel | None = None) -> None:
        await trio.lowlevel.checkpoint()
        if self.deaf is True or manager.node_id == self.deaf:  # type: ignore[attr-defined]
            raise ApiError(503, ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message="nobody hears"))
        self.bids.append((manager.node_id, path, body))  # type: ignore[attr-defined]
        node = manager.node_id or ""
        draining = path.endswith("drain")
        told = {"draining": draining} if path in ("/v2/drain", "/v2/resume") else {}
        shown = draining or bool({node, *told} & self.stays)  # type: ignore[attr-defined]
        self.fleet.heartbeat(node, heartbeat(node, pools=[snapshot(node, draining=shown)], machine_id=None, **told))


@dataclass
class Site:
    rig: FleetRig = field(default_factory=FleetRig)

    def __post_init__(self) -> None:
        self.managers = FakeManagers(self.rig)
        self.operations = Operations(self.rig.registry, self.managers, self.take_place)

    def take_place(self, keys, reason: str) -> int:
        """As the dispatcher does, of tasks that leave at once."""
        for key in keys:
            while self.rig.registry.leases([key]):
                self.rig.registry.release(key)
                self.rig.displaced.append(key)
        return len(self.rig.displaced)

    async def ended(self, identifier: str) -> OperationState:
        while self.operations.view(identifier).state is OperationState.RUNNING:  # noqa: ASYNC110 -- the clock jumps
            await trio.sleep(0.01)
        return self.operations.view(identifier).state


@asynccontextmanager
async def site(*nodes: str) -> AsyncIterator[Site]:
    found = Site()
    for node in nodes:
        await found.rig.join(node)
    async with trio.open_nursery() as nursery:
        await nursery.start(found.operations.run)
        yield found
        nursery.cancel_scope.cancel()


async def test_a_drained_pool_gets_nothing_more_and_the_drain_is_done_when_nothing_runs_there(autojump_clock):
    async with site("n1") as here:
        here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(POOL, DrainRequest())
        assert (drain.state, drain.leases_total, drain.leases_left) == (OperationState.RUNNING, 1, 1)
        assert here.rig.open_nodes == set()
        here.rig.registry.release(("p", "n1"))
        assert await here.ended(drain.operation_id) is OperationState.DONE
        assert here.rig.displaced == []


async def test_a_pool_is_drained_on_every_node_that_has_it_or_on_the_one_that_is_named():
    async with site("n1", "n2") as here:
        await here.operations.drain(POOL, DrainRequest(deadline_ms=5))
        assert here.rig.open_nodes == set()
        await here.operations.resume(POOL)
        assert here.rig.open_nodes == {"n1", "n2"}
        await here.operations.drain(Target("p", "n2"), DrainRequest())
        assert here.rig.open_nodes == {"n1"}
        (last,) = here.managers.bids[-1:]  # type: ignore[attr-defined]
        assert last == ("n2", "/v2/pools/p/drain", DrainRequest())


async def test_a_node_is_drained_as_a_whole():
    async with site("n1", "n2") as here:
        await here.operations.drain(NODE, DrainRequest())
        assert (here.rig.open_nodes, here.rig.status("n1")) == ({"n2"}, "draining")
        await here.operations.resume(NODE)
        assert here.rig.open_nodes == {"n1", "n2"}


async def test_when_the_deadline_passes_what_still_runs_loses_its_place(autojump_clock):
    async with site("n1") as here:
        here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(POOL, DrainRequest(deadline_ms=60_000))
        began = trio.current_time()
        assert await here.ended(drain.operation_id) is OperationState.DONE
        assert trio.current_time() - began == pytest.approx(60, abs=0.1)
        assert here.rig.displaced == [("p", "n1")]
        assert "1 tasks were cut off" in (here.operations.view(drain.operation_id).message or "")


@pytest.mark.parametrize("target", [POOL, NODE], ids=["pool", "node"])
@pytest.mark.parametrize("told", ["registers anew", "tells of no pool"])
async def test_a_drain_is_not_done_while_tasks_run_on_a_pool_that_is_told_of_no_more(target, told, autojump_clock):
    async with site("n1") as here:
        here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(target, DrainRequest(deadline_ms=60_000))
        if told == "registers anew":
            await here.rig.fleet.register(registration(), "192.0.2.1")
        else:
            here.rig.fleet.heartbeat("n1", heartbeat(pools=[], draining=True))
        await trio.testing.wait_all_tasks_blocked()
        shown = here.operations.view(drain.operation_id)
        assert (shown.state, shown.leases_left) == (OperationState.RUNNING, 1)
        assert await here.ended(drain.operation_id) is OperationState.DONE
        assert here.rig.displaced == [("p", "n1")], "the deadline holds all the same"


async def test_a_node_that_has_not_told_of_its_pools_yet_is_drained_of_what_runs_there(autojump_clock):
    async with site("n1") as here:
        here.rig.registry.lease(("p", "n1"))
        await here.rig.fleet.register(registration(), "192.0.2.1")
        drain = await here.operations.drain(NODE, DrainRequest())
        assert (drain.state, drain.leases_total) == (OperationState.RUNNING, 1)


async def test_a_task_that_does_not_end_even_so_is_told_as_a_failure(autojump_clock):
    async with site("n1") as here:
        here.operations._take_place = lambda keys, reason: 1
        here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(POOL, DrainRequest(deadline_ms=0))
        assert await here.ended(drain.operation_id) is OperationState.FAILED
        assert here.operations.view(drain.operation_id).leases_left == 1
        assert CUT_S > 0


async def test_resume_undoes_a_drain_that_goes_on_and_its_deadline(autojump_clock):
    async with site("n1") as here:
        here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(POOL, DrainRequest(deadline_ms=1000))
        done = await here.operations.resume(POOL)
        assert done.state is OperationState.DONE
        assert await here.ended(drain.operation_id) is OperationState.CANCELLED
        await trio.sleep(10)
        assert here.rig.displaced == []
        assert here.rig.open_nodes == {"n1"}


async def test_a_drain_that_nobody_hears_is_refused_and_leaves_no_operation():
    async with site("n1") as here:
        object.__setattr__(here.managers, "deaf", True)
        with pytest.raises(ApiError) as caught:
            await here.operations.drain(POOL, DrainRequest())
        assert caught.value.status == 503
        assert here.operations.views() == []


async def test_what_was_done_before_one_could_not_be_asked_is_told_since_nobody_undoes_it():
    async with site("n1", "n2") as here:
        object.__setattr__(here.managers, "deaf", "n2")
        with pytest.raises(ApiError) as caught:
            await here.operations.drain(POOL, DrainRequest())
        assert (caught.value.status, here.rig.open_nodes) == (503, {"n2"})
        assert "The drain is in force on node n1." in (caught.value.body.hint or "")


@pytest.mark.parametrize("target", [POOL, NODE])
async def test_a_resume_does_not_say_that_tasks_come_where_something_stays_drained(target, autojump_clock):
    async with site("n1") as here:
        await here.operations.drain(target, DrainRequest())
        here.managers.stays.add("n1")  # type: ignore[attr-defined]
        done = await here.operations.resume(target)
        assert "gets tasks again" not in (done.message or "")
        assert ("n1" if target is POOL else "themselves stay so: p") in (done.message or "")
        here.managers.stays.clear()  # type: ignore[attr-defined]
        assert (await here.operations.resume(target)).message == "it gets tasks again"


@pytest.mark.parametrize("target", [Target("q"), Target("p", "n9"), Target(node_id="n9")])
async def test_what_is_not_there_cannot_be_drained(target):
    async with site("n1") as here:
        with pytest.raises(ApiError) as caught:
            await here.operations.drain(target, DrainRequest())
        assert caught.value.status == 404


async def test_only_the_last_operations_are_kept_newest_first():
    async with site("n1") as here:
        first = await here.operations.resume(POOL)
        for _ in range(KEPT):
            last = await here.operations.resume(POOL)
        assert (len(here.operations.views()), here.operations.views()[0].operation_id) == (KEPT, last.operation_id)
        with pytest.raises(ApiError):
            here.operations.view(first.operation_id)

"""Drain and resume pools and nodes: progress, deadlines, cancellation and failures."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from pydantic import BaseModel

from llama_orch.contracts.errors import ApiError, ErrorBody, ErrorCode
from llama_orch.contracts.operations import DrainRequest, OperationState
from queen_rbee.fleet.managers import PoolManager, PoolManagers
from queen_rbee.fleet.operations import HISTORY_LIMIT, INTERRUPT_TIMEOUT_S, Operations, OperationTarget
from tests.unit.queen_rbee.fleet_rig import FleetRig, heartbeat, registration, snapshot

POOL, NODE = OperationTarget("p"), OperationTarget(node_id="n1")


class FakeManagers(PoolManagers):
    """Pool-managerds that obey and send a heartbeat at once.

    `unreachable` is the node that fails, or True for all; `still_draining` are nodes whose pools stay drained.
    """

    def __init__(self, rig: FleetRig) -> None:
        super().__init__(rig.fleet, rig.registry, ())
        object.__setattr__(self, "requests", [])
        object.__setattr__(self, "unreachable", False)
        object.__setattr__(self, "still_draining", set())

    async def post(self, manager: PoolManager, path: str, body: BaseModel | None = None, **_options: object) -> bytes:
        await trio.lowlevel.checkpoint()
        if self.unreachable is True or manager.node_id == self.unreachable:  # type: ignore[attr-defined]
            raise ApiError(503, ErrorBody(code=ErrorCode.POOL_UNAVAILABLE, message="cannot connect"))
        self.requests.append((manager.node_id, path, body))  # type: ignore[attr-defined]
        node = manager.node_id or ""
        draining = path.endswith("drain")
        fields = {"draining": draining} if path in ("/v2/drain", "/v2/resume") else {}
        pool_draining = draining or bool({node, *fields} & self.still_draining)  # type: ignore[attr-defined]
        self.fleet.heartbeat(
            node, heartbeat(node, pools=[snapshot(node, draining=pool_draining)], machine_id=None, **fields)
        )
        return b""


@dataclass
class Site:
    rig: FleetRig = field(default_factory=FleetRig)

    def __post_init__(self) -> None:
        self.managers = FakeManagers(self.rig)
        self.operations = Operations(self.rig.registry, self.managers, self.interrupt_tasks)

    def interrupt_tasks(self, keys, reason: str) -> int:
        """Interrupt as the dispatcher does; the tasks end at once."""
        for key in keys:
            while self.rig.registry.count_leases([key]):
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


async def test_drain_ends_when_last_task_has_ended(autojump_clock):
    async with site("n1") as here:
        await here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(POOL, DrainRequest())
        assert (drain.state, drain.leases_total, drain.leases_left) == (OperationState.RUNNING, 1, 1)
        assert here.rig.open_nodes == set()
        here.rig.registry.release(("p", "n1"))
        assert await here.ended(drain.operation_id) is OperationState.DONE
        assert here.rig.displaced == []


async def test_drain_of_pool_affects_all_nodes_or_the_given_one():
    async with site("n1", "n2") as here:
        await here.operations.drain(POOL, DrainRequest(deadline_ms=5))
        assert here.rig.open_nodes == set()
        await here.operations.resume(POOL)
        assert here.rig.open_nodes == {"n1", "n2"}
        await here.operations.drain(OperationTarget("p", "n2"), DrainRequest())
        assert here.rig.open_nodes == {"n1"}
        (last,) = here.managers.requests[-1:]  # type: ignore[attr-defined]
        assert last == ("n2", "/v2/pools/p/drain", DrainRequest())


async def test_drain_of_node_affects_all_its_pools():
    async with site("n1", "n2") as here:
        await here.operations.drain(NODE, DrainRequest())
        assert (here.rig.open_nodes, here.rig.status("n1")) == ({"n2"}, "draining")
        await here.operations.resume(NODE)
        assert here.rig.open_nodes == {"n1", "n2"}


async def test_drain_interrupts_tasks_at_deadline(autojump_clock):
    async with site("n1") as here:
        await here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(POOL, DrainRequest(deadline_ms=60_000))
        started = trio.current_time()
        assert await here.ended(drain.operation_id) is OperationState.DONE
        assert trio.current_time() - started == pytest.approx(60, abs=0.1)
        assert here.rig.displaced == [("p", "n1")]
        assert "1 tasks were interrupted" in (here.operations.view(drain.operation_id).message or "")


@pytest.mark.parametrize("target", [POOL, NODE], ids=["pool", "node"])
@pytest.mark.parametrize("node", ["registers again", "reports no pool"])
async def test_drain_waits_for_tasks_of_unreported_pool(target, node, autojump_clock):
    async with site("n1") as here:
        await here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(target, DrainRequest(deadline_ms=60_000))
        if node == "registers again":
            await here.rig.fleet.register(registration(), "192.0.2.1")
        else:
            here.rig.fleet.heartbeat("n1", heartbeat(pools=[], draining=True))
        await trio.testing.wait_all_tasks_blocked()
        view = here.operations.view(drain.operation_id)
        assert (view.state, view.leases_left) == (OperationState.RUNNING, 1)
        assert await here.ended(drain.operation_id) is OperationState.DONE
        assert here.rig.displaced == [("p", "n1")], "the deadline still applies"


async def test_drain_of_node_without_pools_counts_its_tasks(autojump_clock):
    async with site("n1") as here:
        await here.rig.registry.lease(("p", "n1"))
        await here.rig.fleet.register(registration(), "192.0.2.1")
        drain = await here.operations.drain(NODE, DrainRequest())
        assert (drain.state, drain.leases_total) == (OperationState.RUNNING, 1)


async def test_drain_fails_if_interrupted_task_does_not_end(autojump_clock):
    async with site("n1") as here:
        here.operations._interrupt_tasks = lambda keys, reason: 1
        await here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(POOL, DrainRequest(deadline_ms=0))
        assert await here.ended(drain.operation_id) is OperationState.FAILED
        assert here.operations.view(drain.operation_id).leases_left == 1
        assert INTERRUPT_TIMEOUT_S > 0


async def test_resume_cancels_running_drain_and_its_deadline(autojump_clock):
    async with site("n1") as here:
        await here.rig.registry.lease(("p", "n1"))
        drain = await here.operations.drain(POOL, DrainRequest(deadline_ms=1000))
        done = await here.operations.resume(POOL)
        assert done.state is OperationState.DONE
        assert await here.ended(drain.operation_id) is OperationState.CANCELLED
        await trio.sleep(10)
        assert here.rig.displaced == []
        assert here.rig.open_nodes == {"n1"}


async def test_failed_drain_request_leaves_no_operation():
    async with site("n1") as here:
        object.__setattr__(here.managers, "unreachable", True)
        with pytest.raises(ApiError) as caught:
            await here.operations.drain(POOL, DrainRequest())
        assert caught.value.status == 503
        assert here.operations.views() == []


async def test_partially_failed_drain_names_drained_nodes():
    async with site("n1", "n2") as here:
        object.__setattr__(here.managers, "unreachable", "n2")
        with pytest.raises(ApiError) as caught:
            await here.operations.drain(POOL, DrainRequest())
        assert (caught.value.status, here.rig.open_nodes) == (503, {"n2"})
        assert "The drain is in force on node n1." in (caught.value.body.hint or "")


@pytest.mark.parametrize("target", [POOL, NODE])
async def test_resume_reports_what_stays_drained(target, autojump_clock):
    async with site("n1") as here:
        await here.operations.drain(target, DrainRequest())
        here.managers.still_draining.add("n1")  # type: ignore[attr-defined]
        done = await here.operations.resume(target)
        assert "accepts tasks again" not in (done.message or "")
        assert ("n1" if target is POOL else "individually stay drained: p") in (done.message or "")
        here.managers.still_draining.clear()  # type: ignore[attr-defined]
        assert (await here.operations.resume(target)).message == "it accepts tasks again"


@pytest.mark.parametrize("target", [OperationTarget("q"), OperationTarget("p", "n9"), OperationTarget(node_id="n9")])
async def test_drain_of_unknown_target_is_refused(target):
    async with site("n1") as here:
        with pytest.raises(ApiError) as caught:
            await here.operations.drain(target, DrainRequest())
        assert caught.value.status == 404


async def test_operation_history_is_bounded_and_newest_first():
    async with site("n1") as here:
        first = await here.operations.resume(POOL)
        for _ in range(HISTORY_LIMIT):
            last = await here.operations.resume(POOL)
        assert (len(here.operations.views()), here.operations.views()[0].operation_id) == (
            HISTORY_LIMIT,
            last.operation_id,
        )
        with pytest.raises(ApiError):
            here.operations.view(first.operation_id)

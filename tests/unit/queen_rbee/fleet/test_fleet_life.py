"""Random events of nodes, engines, clients and disk lose, duplicate or misplace no task, and keep all counts right."""

import uuid
from unittest.mock import patch

import trio
from hypothesis import given, note, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from llama_orch.contracts.nodes import PoolSnapshot
from llama_orch.contracts.pools import PoolState
from llama_orch.contracts.tasks import PlacementWish, TaskRequest
from tests.unit.queen_rbee.fleet_invariants import leftovers, violations
from tests.unit.queen_rbee.fleet_rig import INSTANCE, MACHINE, OTHER_INSTANCE, OTHER_MACHINE, snapshot
from tests.unit.queen_rbee.fleet_simulation import FAILURES, FleetSimulation, SlowStore

NODES, POOLS, MODELS = ("n1", "n2"), ("p", "q"), ("m", "k")
SESSIONS = (uuid.UUID(int=1), uuid.UUID(int=2))
LONG_S = 90_000.0


def pool(node_id: str, pool_id: str, how: str, slots: int, model: str):
    ready, draining = how in ("ready", "draining"), how == "draining"
    state = {"ready": PoolState.READY, "draining": PoolState.DRAINING, "failed": PoolState.FAILED}
    fields = {"ready": ready, "draining": draining, "state": state.get(how, PoolState.STARTING)}
    return snapshot(node_id, pool_id, slots_total=slots, slots_free=slots, models_available=[model], **fields)


def pools_of(node_id: str):
    """Generate the pools that a node reports; most are ready."""
    how = st.sampled_from(["ready", "ready", "ready", "draining", "starting", "failed"])
    each = st.builds(pool, st.just(node_id), st.sampled_from(POOLS), how, st.integers(0, 2), st.sampled_from(MODELS))
    return st.lists(each, max_size=2, unique_by=lambda pool: pool.pool_id).map(tuple)


nodes = st.sampled_from(NODES)
drained = st.sampled_from([False, False, True])
machines = st.sampled_from([MACHINE, MACHINE, MACHINE, OTHER_MACHINE])
instances = st.sampled_from([INSTANCE, INSTANCE, INSTANCE, OTHER_INSTANCE, None])
"""The same instance, another one (a restart or a duplicate), or a release without instance ids."""
requests = st.builds(
    TaskRequest,
    prompt=st.just("hello"),
    model_ref=st.sampled_from([None, None, None, *MODELS]),
    priority=st.sampled_from(["interactive", "batch"]),
    session_id=st.sampled_from([None, *SESSIONS]),
    deadline_ms=st.sampled_from([None, None, 4000]),
    placement=st.sampled_from([None, None, None, *POOLS]).map(
        lambda pool_id: pool_id and PlacementWish(mode="pin", pin_pool_id=pool_id)
    ),
)
words = st.sampled_from(["read", "end", *3 * ["stalled"], *FAILURES])
arguments = {
    "register": st.tuples(nodes, machines, instances, st.sampled_from(["http://a:1", "http://a:1", "http://b:1"])),
    "beat": nodes.flatmap(lambda node: st.tuples(st.just(node), machines, instances, pools_of(node), drained)),
    "join": nodes.flatmap(lambda node: st.tuples(st.just(node), pools_of(node))),
    "leave": st.tuples(nodes, instances),
    "check": st.tuples(st.sampled_from([0.0, 1.0, 5.5, 5.5, 40.0, LONG_S])),
    "disk": st.tuples(st.booleans()),
    "submit": st.tuples(requests, st.booleans()),
    "say": st.tuples(st.integers(0, 5), words),
    "cancel": st.tuples(st.integers(0, 5)),
    "restart": st.just(()),
    "nothing": st.just(()),
}
WEIGHTS = {"submit": 9, "say": 9, "beat": 3, "check": 3}
names = st.sampled_from(["nothing", *(name for name in arguments for _ in range(WEIGHTS.get(name, 1)))])
"""Weighted by repetition, because `one_of` ignores duplicates."""
events = names.flatmap(lambda name: arguments[name].map(lambda words: (name, *words)))


class Life(FleetSimulation):
    """A world whose events can be performed by name."""

    async def perform(self, name: str, *arguments) -> None:
        """Start one event; a restart runs to its end."""
        if name == "restart":
            await self.restart()
        elif name == "disk":
            self.disk(*arguments)
        elif name == "say" and self.channels:
            line = list(self.channels.values())[arguments[0] % len(self.channels)]
            line.send_nowait(arguments[1])
        elif name == "cancel" and (tasks := [task for task in self.tasks if not task.state.final]):
            self.queen.dispatcher.cancel(tasks[arguments[0] % len(tasks)])
        elif name == "check":
            self.clock.jump(arguments[0])
            self.do(self.check)
        elif name in ("register", "beat", "join", "leave", "submit"):
            self.do(getattr(self, name), *arguments)

    def disk(self, writable: bool) -> None:
        if writable:
            self.store.writable.set()
        elif self.store.writable.is_set():
            self.store.writable = trio.Event()

    async def join(self, node_id: str, pools: tuple[PoolSnapshot, ...]) -> None:
        """Register a node and send a heartbeat, whatever its state was."""
        await self.register(node_id, MACHINE, INSTANCE, "http://a:1")
        await self.beat(node_id, MACHINE, INSTANCE, pools, False)

    async def end(self) -> None:
        """Leave one node with all models, and let every task end."""
        for event in (("disk", True), ("check", 100.0), ("leave", "n1", None)):
            await self.perform(*event)
            await wait_all_tasks_blocked()
        everything = tuple(snapshot("n2", pool_id, models_available=list(MODELS)) for pool_id in POOLS)
        for _round in range(50):
            self.do(self.join, "n2", everything)
            for channel in self.channels.values():
                channel.send_nowait("end")
            await wait_all_tasks_blocked()
            if all(task.state.final for task in self.tasks):
                break
            self.clock.jump(61.0)
        await self.perform("check", 0.0)
        await wait_all_tasks_blocked()


@settings(max_examples=80, derandomize=True)
@given(st.lists(st.tuples(events, st.booleans()), min_size=30, max_size=50))
def test_random_events_break_no_invariant(plan):
    for step in plan:
        note(repr(step))

    async def play() -> None:
        async with trio.open_nursery() as life.nursery:
            await life.start(SlowStore())
            for node_id in NODES:
                await life.perform("join", node_id, (pool(node_id, "p", "ready", 1, "m"),))
            for event, alone in plan:
                await life.perform(*event)
                if alone:
                    await wait_all_tasks_blocked()
                    assert violations(life) == []
            await life.end()
            assert [*violations(life), *leftovers(life)] == []
            life.nursery.cancel_scope.cancel()

    clock = MockClock()
    life = Life(clock)
    with patch("queen_rbee.dispatch.relay.run", life.relay):
        trio.run(play, clock=clock)

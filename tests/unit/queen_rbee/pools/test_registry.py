"""The registry uses the right source, counts leases, and wakes the dispatcher when a placement may change."""

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.bell import Bell
from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from llama_orch.engines.wire.llamacpp import LlamaCpp
from queen_rbee.pools.candidates import Demand
from queen_rbee.pools.registry import PoolRegistry

KEY = ("p", "r0")


def pool(pool_id: str = "p", *, engine: str = "llamacpp", slots: int = 2, ready: bool = True, **more) -> PoolStatus:
    replica = ReplicaStatus(replica_id="r0", url="http://127.0.0.1:1", ready=ready, slots_total=slots, slots_free=slots)
    default = {"pool_id": pool_id, "state": PoolState.READY, "live": True, "ready": ready, "draining": False}
    return PoolStatus(**{**default, "engine": engine, "replicas": [replica], **more})


def registry() -> PoolRegistry:
    return PoolRegistry(Bell(), {"llamacpp": LlamaCpp()})


async def rung(bell: Bell) -> bool:
    return await bell.wait(0)


def test_source_with_lowest_rank_is_in_effect():
    known = registry()
    known.update("handoff files", 1, [pool("p", slots=1), pool("only-here")])
    known.update("pool-managerd", 0, [pool("p", slots=4)])
    assert {c.pool_id: c.slots_total for c in known.replicas.all()} == {"p": 4, "only-here": 2}
    known.forget("pool-managerd")
    assert {c.pool_id: c.slots_total for c in known.replicas.all()} == {"p": 1, "only-here": 2}


def test_report_replaces_earlier_report_of_source():
    known = registry()
    known.update("s", 0, [pool("old")])
    known.update("s", 0, [pool("new")])
    assert [found.pool_id for found in known.pools()] == ["new"]


@given(st.lists(st.sampled_from(["lease", "release", "update", "forget"]), max_size=30))
async def test_leases_survive_changing_reports(operations):
    known, leased = registry(), 0
    known.update("s", 0, [pool(slots=64)])
    for operation in operations:
        if operation == "lease":
            leased += await known.lease(KEY)
        elif operation == "release" and leased:
            known.release(KEY)
            leased -= 1
        elif operation == "update":
            known.update("s", 0, [pool(slots=64, last_error=str(leased))])
        elif operation == "forget":
            known.forget("s")
        assert known.leased == leased
        assert all(c.leased == leased and c.slots_free == 64 - leased for c in known.replicas.all())
        assert all(found.active_leases == leased for found in known.pools())
        assert known.replicas.slots_open == sum(c.slots_free for c in known.replicas.all() if c.open)


async def test_only_changes_relevant_to_placement_ring_bell():
    bell = Bell()
    known = PoolRegistry(bell, {"llamacpp": LlamaCpp()})
    known.update("s", 0, [pool()])
    assert await rung(bell)
    known.update("s", 0, [pool()])
    assert not await rung(bell), "an unchanged report"
    await known.lease(KEY)
    assert not await rung(bell)
    known.release(KEY)
    assert await rung(bell)
    known.forget("s")
    assert await rung(bell)


def test_pool_without_engine_has_placeholder_replica():
    known = registry()
    known.update("s", 0, [pool(state=PoolState.FAILED, ready=False, replicas=[])])
    (candidate,) = known.replicas.all()
    assert (candidate.pool_id, candidate.state, candidate.open) == ("p", PoolState.FAILED, False)


async def test_open_slots_exclude_unready_and_draining_pools():
    known = registry()
    known.update("s", 0, [pool("a"), pool("b", ready=False), pool("c", draining=True)])
    await known.lease(("a", "r0"))
    assert known.replicas.slots_open == 1


def test_engine_without_adapter_has_no_endpoints():
    known = registry()
    known.update("s", 0, [pool(engine="triton")])
    assert [candidate.endpoints for candidate in known.replicas.all()] == [None]


@given(
    st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.booleans()), max_size=4), max_size=6)
)
def test_ready_pools_are_counted_by_id(reports: list[list[tuple[str, str, bool]]]):
    known = registry()
    for number, pools in enumerate(reports):
        statuses = {(name, node): pool(name, node_id=node, ready=ready) for name, node, ready in pools}
        known.update(f"s{number % 2}", number % 2, statuses.values())
        ids = {found.pool_id for found in known.pools()}
        assert dict(known.ready_by_id) == {
            name: sum(found.ready for found in known.pools() if found.pool_id == name) for name in ids
        }
        assert known.ready_pools == sum(found.ready for found in known.pools())


def test_replica_has_endpoints_of_its_own_workloads():
    replicas = [
        ReplicaStatus(
            replica_id=name, url="http://127.0.0.1:1", ready=True, slots_total=1, slots_free=1, workloads=does
        )
        for name, does in (("r0", ["embedding"]), ("r1", ["completion"]), ("r2", None))
    ]
    known = registry()
    known.update("s", 0, [pool(replicas=replicas)])
    endpoints = {found.replica_id: sorted(found.endpoints or ()) for found in known.replicas.all()}
    assert endpoints["r0"] == ["embeddings"]
    assert endpoints["r1"] == ["chat", "completion", "completions"]
    assert endpoints["r2"] == sorted(LlamaCpp.endpoints), "without workloads, all endpoints of its engine"
    assert [c.replica_id for c in known.replicas.suitable(Demand(endpoint="embeddings"))] == ["r0", "r2"]

"""The registry believes the right source, counts leases, and knows its candidates until something changes."""

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.bell import Bell
from llama_orch.contracts.pools import PoolState, PoolStatus, ReplicaStatus
from llama_orch.engines.wire.llamacpp import LlamaCpp
from queen_rbee.pools.candidates import Demand
from queen_rbee.pools.registry import Registry

KEY = ("p", "r0")


def pool(pool_id: str = "p", *, engine: str = "llamacpp", slots: int = 2, ready: bool = True, **more) -> PoolStatus:
    replica = ReplicaStatus(replica_id="r0", url="http://127.0.0.1:1", ready=ready, slots_total=slots, slots_free=slots)
    plain = {"pool_id": pool_id, "state": PoolState.READY, "live": True, "ready": ready, "draining": False}
    return PoolStatus(**{**plain, "engine": engine, "replicas": [replica], **more})


def registry() -> Registry:
    return Registry(Bell(), {"llamacpp": LlamaCpp()})


async def rung(bell: Bell) -> bool:
    return await bell.wait(0)


def test_the_source_of_the_lowest_rank_is_believed_and_the_others_fill_in():
    known = registry()
    known.update("handoff files", 1, [pool("p", slots=1), pool("only-here")])
    known.update("pool-managerd", 0, [pool("p", slots=4)])
    assert {c.pool_id: c.slots_total for c in known.replicas.all()} == {"p": 4, "only-here": 2}
    known.forget("pool-managerd")
    assert {c.pool_id: c.slots_total for c in known.replicas.all()} == {"p": 1, "only-here": 2}


def test_a_source_replaces_all_that_it_said_before():
    known = registry()
    known.update("s", 0, [pool("old")])
    known.update("s", 0, [pool("new")])
    assert [found.pool_id for found in known.pools()] == ["new"]


@given(st.lists(st.sampled_from(["lease", "release", "update", "forget"]), max_size=30))
def test_leases_are_counted_whatever_the_sources_say_meanwhile(deeds):
    known, held = registry(), 0
    known.update("s", 0, [pool(slots=64)])
    for deed in deeds:
        if deed == "lease":
            known.lease(KEY)
            held += 1
        elif deed == "release" and held:
            known.release(KEY)
            held -= 1
        elif deed == "update":
            known.update("s", 0, [pool(slots=64, last_error=str(held))])
        elif deed == "forget":
            known.forget("s")
        assert known.leased == held
        assert all(c.leased == held and c.slots_free == 64 - held for c in known.replicas.all())
        assert all(found.active_leases == held for found in known.pools())
        assert known.replicas.slots_open == sum(c.slots_free for c in known.replicas.all() if c.open)


async def test_the_dispatcher_is_woken_by_what_may_place_a_task_and_by_nothing_else():
    bell = Bell()
    known = Registry(bell, {"llamacpp": LlamaCpp()})
    known.update("s", 0, [pool()])
    assert await rung(bell)
    known.update("s", 0, [pool()])
    assert not await rung(bell), "the same again is no news"
    known.lease(KEY)
    assert not await rung(bell)
    known.release(KEY)
    assert await rung(bell)
    known.forget("s")
    assert await rung(bell)


def test_a_pool_without_an_engine_stands_for_itself_so_that_its_failure_is_known():
    known = registry()
    known.update("s", 0, [pool(state=PoolState.FAILED, ready=False, replicas=[])])
    (candidate,) = known.replicas.all()
    assert (candidate.pool_id, candidate.state, candidate.open) == ("p", PoolState.FAILED, False)


def test_slots_count_only_what_is_ready_and_not_draining():
    known = registry()
    known.update("s", 0, [pool("a"), pool("b", ready=False), pool("c", draining=True)])
    known.lease(("a", "r0"))
    assert known.replicas.slots_open == 1


def test_an_engine_without_an_adapter_is_known_as_not_spoken():
    known = registry()
    known.update("s", 0, [pool(engine="triton")])
    assert [candidate.endpoints for candidate in known.replicas.all()] == [None]


@given(
    st.lists(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.booleans()), max_size=4), max_size=6)
)
def test_ready_pools_are_counted_by_id_and_an_id_that_nobody_has_is_not_there(told: list[list[tuple[str, str, bool]]]):
    known = registry()
    for number, pools in enumerate(told):
        those = {(name, node): pool(name, node_id=node, ready=ready) for name, node, ready in pools}
        known.update(f"s{number % 2}", number % 2, those.values())
        ids = {found.pool_id for found in known.pools()}
        assert dict(known.ready_by_id) == {
            name: sum(found.ready for found in known.pools() if found.pool_id == name) for name in ids
        }
        assert known.ready_pools == sum(found.ready for found in known.pools())


def test_a_replica_is_asked_only_for_its_own_workloads():
    replicas = [
        ReplicaStatus(
            replica_id=name, url="http://127.0.0.1:1", ready=True, slots_total=1, slots_free=1, workloads=does
        )
        for name, does in (("r0", ["embedding"]), ("r1", ["completion"]), ("r2", None))
    ]
    known = registry()
    known.update("s", 0, [pool(replicas=replicas)])
    told = {found.replica_id: sorted(found.endpoints or ()) for found in known.replicas.all()}
    assert told["r0"] == ["embeddings"]
    assert told["r1"] == ["chat", "completion", "completions"]
    assert told["r2"] == sorted(LlamaCpp.endpoints), "an older node does not tell: all that its kind can do"
    assert [c.replica_id for c in known.replicas.suitable(Demand(endpoint="embeddings"))] == ["r0", "r2"]

"""After any changes the lists of the index equal those that a full scan of the replicas gives."""

from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.pools import PoolState
from llama_orch.engines.wire.passage import Endpoint
from queen_rbee.pools.candidates import Candidate, Demand, ReplicaKey, serves_model
from queen_rbee.pools.placement import suitable
from queen_rbee.pools.replica_index import DEMANDS_LIMIT, Contexts, ReplicaIndex

MODELS = ("file:/m/Tiny.gguf", "tiny", "big.gguf")
ENDPOINTS: frozenset[Endpoint] = frozenset({"completion", "chat"})
DEMANDS = [
    Demand(model_ref, pin=pin, ctx=ctx, prefer=prefer, fallback=not prefer, avoid=avoid)
    for model_ref, pin, ctx, prefer, avoid in product(
        (None, *MODELS, "TINY"), (None, "a", "nowhere"), (None, 200), ((), ("b",)), ((), ("a",))
    )
]

replicas = st.builds(
    Candidate,
    pool_id=st.sampled_from(["a", "b"]),
    replica_id=st.sampled_from(["r0", "r1"]),
    url=st.just("http://x"),
    state=st.just(PoolState.READY),
    ready=st.booleans(),
    draining=st.booleans(),
    slots_total=st.integers(0, 3),
    leased=st.integers(0, 4),
    engine=st.sampled_from(["llamacpp", "vllm"]),
    models=st.lists(st.sampled_from(MODELS), max_size=2, unique=True).map(tuple),
    ctx_max=st.sampled_from([None, 100, 300]),
    endpoints=st.sampled_from([None, ENDPOINTS]),
    circuit=st.sampled_from(["closed", "half-open", "open"]),
)
changes = st.lists(st.one_of(replicas, replicas.map(lambda candidate: candidate.key)), max_size=12)


def apply(operations: list[Candidate | ReplicaKey]) -> tuple[ReplicaIndex, list[Candidate]]:
    """Return the index after all changes, queried for each demand after each change, and the expected replicas."""
    index, known = ReplicaIndex(), {}
    for change in operations:
        if isinstance(change, Candidate):
            index.put(change)
            known[change.key] = change
        else:
            index.drop(change)
            known.pop(change, None)
        for demand in DEMANDS:
            index.suitable(demand)
            index.contexts(demand)
    return index, [known[key] for key in sorted(known)]


@given(changes)
def test_lists_equal_full_scan(operations: list[Candidate | ReplicaKey]):
    index, known = apply(operations)
    assert (list(index.all()), len(index)) == (known, len(known))
    assert all(candidate.key in index and index.get(candidate.key) == candidate for candidate in known)
    for pool_id in ("a", "b", "nowhere"):
        assert list(index.of_pool(pool_id)) == [found for found in known if found.pool_id == pool_id]
    for model in (*MODELS, "TINY.gguf", "none"):
        assert list(index.serving(model)) == [found for found in known if serves_model(found, model)]
    for demand in DEMANDS:
        assert list(index.suitable(demand)) == suitable(known, demand)
        sizes = [found.ctx_max for found in suitable(known, demand)]
        assert index.contexts(demand) == Contexts(max((size for size in sizes if size), default=None), None in sizes)


@given(changes)
def test_open_slots_are_sum_over_open_replicas(operations: list[Candidate | ReplicaKey]):
    index, known = apply(operations)
    assert index.slots_open == sum(found.slots_free for found in known if found.open)


@given(replicas)
def test_leases_do_not_affect_suitability(candidate: Candidate):
    index = ReplicaIndex([candidate])
    before = [list(index.suitable(demand)) for demand in DEMANDS]
    index.put(replace(candidate, leased=candidate.leased + 1))
    after = [list(index.suitable(demand)) for demand in DEMANDS]
    assert [len(found) for found in before] == [len(found) for found in after]
    assert all(found.leased == candidate.leased + 1 for some in after for found in some)


def test_every_change_increments_counter():
    index, replica = ReplicaIndex(), Candidate("a", "r0", "", PoolState.READY, True, False, 1, 0, "llamacpp")
    counts = [index.changes]
    for change in (replica, replace(replica, leased=1)):
        index.put(change)
        counts.append(index.changes)
    index.drop(replica.key)
    assert sorted({*counts, index.changes}) == [*counts, index.changes]


def test_demands_beyond_limit_are_answered():
    replica = Candidate("a", "r0", "", PoolState.READY, True, False, 1, 0, "llamacpp", ctx_max=100, endpoints=ENDPOINTS)
    index = ReplicaIndex([replica])
    for ctx in range(1, 2 * DEMANDS_LIMIT):
        assert bool(index.suitable(Demand(ctx=ctx))) is (ctx <= 100)
        assert index.contexts(Demand(ctx=ctx)).largest == (100 if ctx <= 100 else None)

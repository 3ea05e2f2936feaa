"""Whatever comes, changes and goes, the directory's lists are those that a walk through all replicas would give."""

from dataclasses import replace
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.pools import PoolState
from llama_orch.engines.wire.passage import Endpoint
from queen_rbee.pools.candidates import Candidate, Demand, Key, serves_model
from queen_rbee.pools.directory import DEMANDS_KEPT, Directory
from queen_rbee.pools.placement import suitable

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
deeds = st.lists(st.one_of(replicas, replicas.map(lambda candidate: candidate.key)), max_size=12)


def done(deeds_: list[Candidate | Key]) -> tuple[Directory, list[Candidate]]:
    """The directory after all of `deeds_`, asked for each demand after each of them, and what it must know."""
    directory, known = Directory(), {}
    for deed in deeds_:
        if isinstance(deed, Candidate):
            directory.put(deed)
            known[deed.key] = deed
        else:
            directory.drop(deed)
            known.pop(deed, None)
        for demand in DEMANDS:
            directory.suitable(demand)
    return directory, [known[key] for key in sorted(known)]


@given(deeds)
def test_each_list_is_what_a_walk_through_all_gives(deeds_: list[Candidate | Key]):
    directory, known = done(deeds_)
    assert (list(directory.all()), len(directory)) == (known, len(known))
    assert all(candidate.key in directory and directory.get(candidate.key) == candidate for candidate in known)
    for pool_id in ("a", "b", "nowhere"):
        assert list(directory.of_pool(pool_id)) == [found for found in known if found.pool_id == pool_id]
    for model in (*MODELS, "TINY.gguf", "none"):
        assert list(directory.serving(model)) == [found for found in known if serves_model(found, model)]
    for demand in DEMANDS:
        assert list(directory.suitable(demand)) == suitable(known, demand)


@given(deeds)
def test_open_slots_are_those_of_all_that_are_open(deeds_: list[Candidate | Key]):
    directory, known = done(deeds_)
    assert directory.slots_open == sum(found.slots_free for found in known if found.open)


@given(replicas)
def test_what_a_replica_has_leased_does_not_change_what_it_is_suitable_for(candidate: Candidate):
    directory = Directory([candidate])
    before = [list(directory.suitable(demand)) for demand in DEMANDS]
    directory.put(replace(candidate, leased=candidate.leased + 1))
    after = [list(directory.suitable(demand)) for demand in DEMANDS]
    assert [len(found) for found in before] == [len(found) for found in after]
    assert all(found.leased == candidate.leased + 1 for some in after for found in some)


def test_each_change_is_counted_so_that_what_was_computed_from_them_can_be_told_to_be_old():
    directory, replica = Directory(), Candidate("a", "r0", "", PoolState.READY, True, False, 1, 0, "llamacpp")
    counts = [directory.changes]
    for deed in (replica, replace(replica, leased=1)):
        directory.put(deed)
        counts.append(directory.changes)
    directory.drop(replica.key)
    assert sorted({*counts, directory.changes}) == [*counts, directory.changes]


def test_of_more_demands_than_are_kept_each_is_still_answered():
    replica = Candidate("a", "r0", "", PoolState.READY, True, False, 1, 0, "llamacpp", ctx_max=100, endpoints=ENDPOINTS)
    directory = Directory([replica])
    for ctx in range(1, 2 * DEMANDS_KEPT):
        assert bool(directory.suitable(Demand(ctx=ctx))) is (ctx <= 100)

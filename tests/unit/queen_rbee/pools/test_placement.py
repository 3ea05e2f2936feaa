"""Placement chooses only what meets the demand, and tells refusal from waiting."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.pools import PoolState
from queen_rbee.pools.candidates import Candidate, Demand, serves_model
from queen_rbee.pools.placement import FEW, pick, refusal, suitable, unmet

POOLS = ("alpha", "beta", "gamma")
MODELS = ("tiny.gguf", "org/large")


def candidate(**changes) -> Candidate:
    plain = Candidate(
        pool_id="alpha",
        replica_id="r0",
        url="http://127.0.0.1:1",
        state=PoolState.READY,
        ready=True,
        draining=False,
        slots_total=2,
        leased=0,
        engine="llamacpp",
        models=("tiny.gguf",),
        ctx_max=1024,
        device_mask="cpu",
        endpoints=frozenset({"completion", "chat"}),
    )
    return dataclasses.replace(plain, **changes)


CANDIDATES = st.builds(
    candidate,
    pool_id=st.sampled_from(POOLS),
    replica_id=st.sampled_from(["r0", "r1"]),
    state=st.sampled_from(PoolState),
    ready=st.booleans(),
    draining=st.booleans(),
    slots_total=st.integers(0, 3),
    leased=st.integers(0, 3),
    engine=st.sampled_from(["llamacpp", "vllm"]),
    models=st.sets(st.sampled_from(MODELS)).map(tuple),
    ctx_max=st.sampled_from([None, 512, 4096]),
    device_mask=st.sampled_from([None, "cpu", "0", "0,1"]),
    vram_free_bytes=st.integers(0, 3),
    circuit=st.sampled_from(["closed", "open", "half-open"]),
)
FLEETS = st.lists(CANDIDATES, max_size=6, unique_by=lambda c: c.key)
DEMANDS = st.builds(
    Demand,
    model_ref=st.sampled_from([None, *MODELS]),
    engine=st.sampled_from([None, "llamacpp"]),
    endpoint=st.sampled_from(["completion", "chat", "embeddings"]),
    ctx=st.sampled_from([None, 600]),
    pin=st.sampled_from([None, *POOLS]),
    prefer=st.sets(st.sampled_from(POOLS)).map(tuple),
    avoid=st.sets(st.sampled_from(POOLS), max_size=1).map(tuple),
    device_mask=st.sampled_from([None, "cpu"]),
    fallback=st.booleans(),
)
STRATEGIES = st.sampled_from(["round-robin", "least-loaded", "random"])


def choose(fleet, demand, strategy, turn, affinity=None) -> Candidate | None:
    """As the dispatcher does, with the registry's order."""
    return pick(sorted(suitable(fleet, demand), key=lambda c: c.key), demand, strategy, turn, affinity)


@given(st.sets(st.integers(0, 2 * FEW)), STRATEGIES, st.integers(0, 1000))
def test_of_a_large_fleet_one_that_is_open_is_found_wherever_it_is(opened, strategy, turn):
    fleet = [candidate(replica_id=f"r{n:03}", ready=n in opened) for n in range(2 * FEW + 1)]
    chosen = choose(fleet, Demand(), strategy, turn)
    assert (chosen is None) is (not opened)
    assert chosen is None or chosen.open


def test_round_robin_visits_all_of_a_large_fleet_in_turn():
    fleet = [candidate(replica_id=f"r{n:03}") for n in range(2 * FEW)]
    chosen = [choose(fleet, Demand(), "round-robin", turn) for turn in range(2 * FEW)]
    assert chosen == fleet


@given(st.sets(st.integers(0, 2 * FEW)), STRATEGIES, st.integers(0, 1000), st.integers(0, 3 * FEW))
def test_in_a_large_fleet_a_session_finds_its_replica_or_another_where_it_is_not_open(opened, strategy, turn, warm):
    fleet = [candidate(replica_id=f"r{n:03}", ready=n in opened) for n in range(2 * FEW + 1)]
    chosen = choose(fleet, Demand(), strategy, turn, ("alpha", f"r{warm:03}"))
    expected = fleet[warm] if warm in opened else choose(fleet, Demand(), strategy, turn)
    assert chosen == expected


@pytest.mark.parametrize("circuit", ["open", "half-open"])
def test_replica_whose_circuit_is_not_closed_gets_nothing(circuit):
    assert choose([candidate(circuit=circuit)], Demand(), "round-robin", 0) is None


@given(FLEETS, DEMANDS, STRATEGIES, st.integers(0, 1000))
def test_the_chosen_replica_is_open_and_meets_the_demand(fleet, demand, strategy, turn):
    chosen = choose(fleet, demand, strategy, turn)
    if chosen is not None:
        assert chosen.open
        assert unmet(chosen, demand) is None
        assert chosen.leased < chosen.slots_total


@given(FLEETS, DEMANDS, STRATEGIES, st.integers(0, 1000))
def test_a_task_waits_only_when_every_suitable_replica_is_closed(fleet, demand, strategy, turn):
    if choose(fleet, demand, strategy, turn) is None:
        assert not any(c.open for c in suitable(fleet, demand))


@given(FLEETS, DEMANDS, STRATEGIES, st.integers(0, 1000))
def test_what_can_be_placed_is_never_refused(fleet, demand, strategy, turn):
    chosen = choose(fleet, demand, strategy, turn)
    if chosen is not None and chosen.state is not PoolState.FAILED:
        assert refusal(fleet, demand) is None


@given(FLEETS, DEMANDS, STRATEGIES, st.integers(0, 1000))
def test_a_preferred_pool_with_a_free_slot_wins_and_without_fallback_nothing_else_does(fleet, demand, strategy, turn):
    chosen = choose(fleet, demand, strategy, turn)
    if chosen is None or not demand.prefer or chosen.pool_id in demand.prefer:
        return
    assert demand.fallback
    assert not any(c.open and c.pool_id in demand.prefer for c in suitable(fleet, demand))


@given(FLEETS, STRATEGIES)
def test_the_order_in_which_replicas_are_known_does_not_matter(fleet, strategy):
    assert choose(fleet, Demand(), strategy, 3) == choose(fleet[::-1], Demand(), strategy, 3)


def test_round_robin_visits_all_in_turn():
    fleet = [candidate(pool_id=pool) for pool in POOLS]
    chosen = [choose(fleet, Demand(), "round-robin", turn) for turn in range(6)]
    assert [c.pool_id for c in chosen if c] == [*POOLS, *POOLS]


def test_least_loaded_takes_most_free_memory_then_fewest_busy_slots_then_the_id():
    roomy = candidate(pool_id="gamma", vram_free_bytes=9, leased=1)
    idle = candidate(pool_id="beta", vram_free_bytes=1)
    twin = candidate(pool_id="alpha", vram_free_bytes=1)
    busy = candidate(pool_id="alpha", replica_id="r1", vram_free_bytes=1, leased=1)
    assert choose([busy, idle, twin, roomy], Demand(), "least-loaded", 0) is roomy
    assert choose([busy, idle, twin], Demand(), "least-loaded", 0) is twin
    assert choose([busy, idle], Demand(), "least-loaded", 0) is idle


def test_a_pin_on_a_pool_that_does_not_exist_is_refused_and_the_known_ones_are_named():
    refused = refusal([candidate()], Demand(pin="nowhere"))
    assert refused is not None
    assert refused.code is ErrorCode.POOL_UNAVAILABLE
    assert "nowhere" in refused.message
    assert "alpha" in refused.hint


def test_a_pin_on_a_busy_pool_waits_and_never_falls_back():
    fleet = [candidate(leased=2), candidate(pool_id="beta")]
    assert choose(fleet, Demand(pin="alpha"), "round-robin", 0) is None
    assert refusal(fleet, Demand(pin="alpha")) is None


@pytest.mark.parametrize(
    ("demand", "reason"),
    [
        (Demand(model_ref="unknown"), "the models are tiny.gguf"),
        (Demand(engine="vllm"), "the engine is llamacpp"),
        (Demand(ctx=4096), "4096 tokens of context are asked for, room for 1024"),
        (Demand(device_mask="0"), "the devices are cpu"),
        (Demand(avoid=("alpha",)), "the task avoids pool alpha"),
    ],
)
def test_what_no_pool_can_ever_serve_is_the_clients_mistake_and_named(demand, reason):
    refused = refusal([candidate()], demand)
    assert refused is not None
    assert refused.code is ErrorCode.INVALID_PARAMS
    assert reason in refused.message
    assert not refused.retriable


def test_a_context_that_is_too_small_is_told_apart_where_nothing_else_is_in_the_way():
    too_small, elsewhere = (
        refusal([candidate()], Demand(ctx=4096)),
        refusal([candidate()], Demand(ctx=4096, engine="x")),
    )
    assert too_small is not None
    assert elsewhere is not None
    assert (too_small.reason, elsewhere.reason) == ("context_length_exceeded", None)


def test_a_pool_of_an_engine_that_is_not_spoken_gets_nothing_and_says_why():
    stranger = candidate(engine="triton", endpoints=None)
    assert choose([stranger], Demand(), "round-robin", 0) is None
    refused = refusal([stranger], Demand())
    assert refused is not None
    assert "triton is not spoken" in refused.message


def test_a_refusal_for_other_work_names_the_models_that_do_it():
    chat = candidate(models=("file:/srv/chat.gguf",), endpoints=frozenset({"completion", "chat"}))
    embeds = candidate(pool_id="beta", models=("file:/srv/e5.gguf",), endpoints=frozenset({"embeddings"}))
    refused = refusal([chat, embeds], Demand(model_ref="chat", endpoint="embeddings"))
    assert refused is not None
    assert (refused.code, refused.retriable, refused.fields[0].field) == (ErrorCode.INVALID_PARAMS, False, "model_ref")
    assert refused.message == "the model chat does not serve embedding tasks, only completion"
    assert refused.hint == "Models that do: e5."
    nowhere = refusal([chat], Demand(endpoint="rerank"))
    assert nowhere is not None
    assert (nowhere.message, nowhere.fields) == ("no pool that fits serves rerank tasks", ())
    assert 'workloads = ["rerank"]' in nowhere.hint


def test_a_pool_that_starts_is_waited_for_and_one_that_failed_is_not():
    starting = candidate(state=PoolState.STARTING, ready=False)
    failed = candidate(state=PoolState.FAILED, ready=False)
    assert refusal([starting], Demand()) is None
    refused = refusal([failed], Demand())
    assert refused is not None
    assert refused.code is ErrorCode.POOL_UNREADY
    assert refused.retriable


def test_without_any_pool_the_task_is_told_to_come_back():
    refused = refusal([], Demand())
    assert refused is not None
    assert refused.code is ErrorCode.POOL_UNREADY
    assert refused.retriable


@pytest.mark.parametrize("name", ["tiny.gguf", "tiny", "TINY", "file:/srv/models/tiny.gguf"])
def test_a_model_is_known_by_its_full_reference_its_file_name_and_that_without_ending(name):
    assert serves_model(candidate(models=("tiny.gguf",)), name)


def test_another_model_is_not_served():
    assert not serves_model(candidate(models=("tiny.gguf",)), "tin")

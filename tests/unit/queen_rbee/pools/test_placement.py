"""Placement chooses open replicas that meet the demand, and refuses only tasks that can never be placed."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.errors import ErrorCode
from llama_orch.contracts.pools import PoolState
from queen_rbee.pools.candidates import Candidate, Demand, serves_model
from queen_rbee.pools.placement import FILTER_LIMIT, pick, refusal, suitable, unmet
from queen_rbee.pools.strategies import STRATEGIES

POOLS = ("alpha", "beta", "gamma")
MODELS = ("tiny.gguf", "org/large")


def candidate(**changes) -> Candidate:
    default = Candidate(
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
    return dataclasses.replace(default, **changes)


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
STRATEGY_NAMES = st.sampled_from(list(STRATEGIES))


def choose(fleet, demand, strategy, turn, affinity=None) -> Candidate | None:
    """Pick as the dispatcher does: from the suitable replicas, sorted by key."""
    return pick(sorted(suitable(fleet, demand), key=lambda c: c.key), demand, strategy, turn, affinity)


@given(st.sets(st.integers(0, 2 * FILTER_LIMIT)), STRATEGY_NAMES, st.integers(0, 1000))
def test_open_replica_is_found_in_large_fleet(open_numbers, strategy, turn):
    fleet = [candidate(replica_id=f"r{n:03}", ready=n in open_numbers) for n in range(2 * FILTER_LIMIT + 1)]
    chosen = choose(fleet, Demand(), strategy, turn)
    assert (chosen is None) is (not open_numbers)
    assert chosen is None or chosen.open


def test_round_robin_visits_large_fleet_in_order():
    fleet = [candidate(replica_id=f"r{n:03}") for n in range(2 * FILTER_LIMIT)]
    chosen = [choose(fleet, Demand(), "round-robin", turn) for turn in range(2 * FILTER_LIMIT)]
    assert chosen == fleet


@given(
    st.sets(st.integers(0, 2 * FILTER_LIMIT)), STRATEGY_NAMES, st.integers(0, 1000), st.integers(0, 3 * FILTER_LIMIT)
)
def test_affinity_in_large_fleet_falls_back_when_busy(open_numbers, strategy, turn, cached):
    fleet = [candidate(replica_id=f"r{n:03}", ready=n in open_numbers) for n in range(2 * FILTER_LIMIT + 1)]
    chosen = choose(fleet, Demand(), strategy, turn, ("alpha", f"r{cached:03}"))
    expected = fleet[cached] if cached in open_numbers else choose(fleet, Demand(), strategy, turn)
    assert chosen == expected


@pytest.mark.parametrize("circuit", ["open", "half-open"])
def test_replica_without_closed_circuit_gets_no_task(circuit):
    assert choose([candidate(circuit=circuit)], Demand(), "round-robin", 0) is None


@given(FLEETS, DEMANDS, STRATEGY_NAMES, st.integers(0, 1000))
def test_chosen_replica_is_open_and_meets_demand(fleet, demand, strategy, turn):
    chosen = choose(fleet, demand, strategy, turn)
    if chosen is not None:
        assert chosen.open
        assert unmet(chosen, demand) is None
        assert chosen.leased < chosen.slots_total


@given(FLEETS, DEMANDS, STRATEGY_NAMES, st.integers(0, 1000))
def test_task_waits_only_when_no_suitable_replica_is_open(fleet, demand, strategy, turn):
    if choose(fleet, demand, strategy, turn) is None:
        assert not any(c.open for c in suitable(fleet, demand))


@given(FLEETS, DEMANDS, STRATEGY_NAMES, st.integers(0, 1000))
def test_placeable_task_is_not_refused(fleet, demand, strategy, turn):
    chosen = choose(fleet, demand, strategy, turn)
    if chosen is not None and chosen.state is not PoolState.FAILED:
        assert refusal(fleet, demand) is None


@given(FLEETS, DEMANDS, STRATEGY_NAMES, st.integers(0, 1000))
def test_open_preferred_pool_wins_over_fallback(fleet, demand, strategy, turn):
    chosen = choose(fleet, demand, strategy, turn)
    if chosen is None or not demand.prefer or chosen.pool_id in demand.prefer:
        return
    assert demand.fallback
    assert not any(c.open and c.pool_id in demand.prefer for c in suitable(fleet, demand))


@given(FLEETS, STRATEGY_NAMES)
def test_order_of_discovery_does_not_affect_choice(fleet, strategy):
    assert choose(fleet, Demand(), strategy, 3) == choose(fleet[::-1], Demand(), strategy, 3)


def test_round_robin_visits_pools_in_order():
    fleet = [candidate(pool_id=pool) for pool in POOLS]
    chosen = [choose(fleet, Demand(), "round-robin", turn) for turn in range(6)]
    assert [c.pool_id for c in chosen if c] == [*POOLS, *POOLS]


def test_least_loaded_orders_by_memory_slots_and_id():
    roomy = candidate(pool_id="gamma", vram_free_bytes=9, leased=1)
    idle = candidate(pool_id="beta", vram_free_bytes=1)
    twin = candidate(pool_id="alpha", vram_free_bytes=1)
    busy = candidate(pool_id="alpha", replica_id="r1", vram_free_bytes=1, leased=1)
    assert choose([busy, idle, twin, roomy], Demand(), "least-loaded", 0) is roomy
    assert choose([busy, idle, twin], Demand(), "least-loaded", 0) is twin
    assert choose([busy, idle], Demand(), "least-loaded", 0) is idle


def test_pin_to_unknown_pool_is_refused_with_known_pools():
    refused = refusal([candidate()], Demand(pin="nowhere"))
    assert refused is not None
    assert refused.code is ErrorCode.POOL_UNAVAILABLE
    assert "nowhere" in refused.message
    assert "alpha" in refused.hint


def test_pin_to_busy_pool_waits_without_fallback():
    fleet = [candidate(leased=2), candidate(pool_id="beta")]
    assert choose(fleet, Demand(pin="alpha"), "round-robin", 0) is None
    assert refusal(fleet, Demand(pin="alpha")) is None


@pytest.mark.parametrize(
    ("demand", "reason"),
    [
        (Demand(model_ref="unknown"), "the models are tiny.gguf"),
        (Demand(engine="vllm"), "the engine is llamacpp"),
        (Demand(ctx=4096), "4096 tokens of context requested, the largest available is 1024"),
        (Demand(device_mask="0"), "the devices are cpu"),
        (Demand(avoid=("alpha",)), "the task avoids pool alpha"),
    ],
)
def test_demand_no_pool_can_meet_is_refused_with_reason(demand, reason):
    refused = refusal([candidate()], demand)
    assert refused is not None
    assert refused.code is ErrorCode.INVALID_PARAMS
    assert reason in refused.message
    assert not refused.retriable


def test_context_reason_requires_all_else_to_match():
    too_small, elsewhere = (
        refusal([candidate()], Demand(ctx=4096)),
        refusal([candidate()], Demand(ctx=4096, engine="x")),
    )
    assert too_small is not None
    assert elsewhere is not None
    assert (too_small.reason, elsewhere.reason) == ("context_length_exceeded", None)


def test_unsupported_engine_gets_no_task():
    unsupported = candidate(engine="triton", endpoints=None)
    assert choose([unsupported], Demand(), "round-robin", 0) is None
    refused = refusal([unsupported], Demand())
    assert refused is not None
    assert "triton is not supported" in refused.message


def test_wrong_workload_refusal_names_capable_models():
    chat = candidate(models=("file:/srv/chat.gguf",), endpoints=frozenset({"completion", "chat"}))
    embeds = candidate(pool_id="beta", models=("file:/srv/e5.gguf",), endpoints=frozenset({"embeddings"}))
    refused = refusal([chat, embeds], Demand(model_ref="chat", endpoint="embeddings"))
    assert refused is not None
    assert (refused.code, refused.retriable, refused.fields[0].field) == (ErrorCode.INVALID_PARAMS, False, "model_ref")
    assert refused.message == "the model chat does not serve embedding tasks, only completion"
    assert refused.hint == "Models that do: e5."
    nowhere = refusal([chat], Demand(endpoint="rerank"))
    assert nowhere is not None
    assert (nowhere.message, nowhere.fields) == ("no matching pool serves rerank tasks", ())
    assert 'workloads = ["rerank"]' in nowhere.hint


def test_task_waits_for_starting_pool_but_not_failed_one():
    starting = candidate(state=PoolState.STARTING, ready=False)
    failed = candidate(state=PoolState.FAILED, ready=False)
    assert refusal([starting], Demand()) is None
    refused = refusal([failed], Demand())
    assert refused is not None
    assert refused.code is ErrorCode.POOL_UNREADY
    assert refused.retriable


def test_refusal_without_pools_is_retriable():
    refused = refusal([], Demand())
    assert refused is not None
    assert refused.code is ErrorCode.POOL_UNREADY
    assert refused.retriable


@pytest.mark.parametrize("name", ["tiny.gguf", "tiny", "TINY", "file:/srv/models/tiny.gguf"])
def test_model_is_found_by_reference_or_file_name(name):
    assert serves_model(candidate(models=("tiny.gguf",)), name)


def test_model_name_prefix_does_not_match():
    assert not serves_model(candidate(models=("tiny.gguf",)), "tin")

"""What becomes of an engine with each look at it."""

from itertools import takewhile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.pools import PoolState
from llama_orch.engines.kind import Description, Slots
from pool_managerd.pools.replica import (
    CHANGING_INTERVAL_S,
    OFFLINE_AFTER,
    SETTLED_INTERVAL_S,
    HealthAnswer,
    ProbeResult,
    announced_details,
    next_check_s,
)
from tests.unit.pool_managerd.values import GONE, LOADING, READY, SILENT, handoff, replica

results = st.lists(st.sampled_from([READY, LOADING, SILENT, GONE]), max_size=12)


@pytest.mark.parametrize(
    ("looks", "state", "live"),
    [
        ((), PoolState.STARTING, False),
        ((LOADING,), PoolState.STARTING, True),
        ((READY,), PoolState.READY, True),
        ((READY, LOADING), PoolState.STARTING, True),
        ((READY, SILENT), PoolState.READY, True),
        ((READY, SILENT, SILENT), PoolState.READY, True),
        ((READY, SILENT, SILENT, SILENT), PoolState.OFFLINE, False),
        ((READY, GONE), PoolState.STARTING, False),
        ((READY, GONE, GONE, GONE), PoolState.OFFLINE, False),
        ((GONE, GONE), PoolState.STARTING, False),
        ((GONE, GONE, GONE), PoolState.OFFLINE, False),
        ((GONE, GONE, GONE, READY), PoolState.READY, True),
    ],
)
def test_each_look_leads_to_the_state_it_should(looks: tuple[ProbeResult, ...], state: PoolState, live: bool) -> None:
    after = replica(*looks)
    assert (after.state, after.live) == (state, live)


@given(results)
def test_offline_means_as_many_misses_in_a_row_as_it_takes(looks: list[ProbeResult]) -> None:
    misses = len(list(takewhile(lambda look: look in (SILENT, GONE), reversed(looks))))
    assert (replica(*looks).state is PoolState.OFFLINE) == (misses >= OFFLINE_AFTER)


@given(results)
def test_one_good_answer_makes_ready_whatever_was_before(looks: list[ProbeResult]) -> None:
    after = replica(*looks, READY)
    assert (after.state, after.error, after.offline_since_s) == (PoolState.READY, None, None)


@given(results)
def test_an_engine_that_refuses_connections_is_never_ready(looks: list[ProbeResult]) -> None:
    assert replica(*looks, GONE).state is not PoolState.READY


@given(results)
def test_what_is_not_ready_after_a_look_has_a_reason(looks: list[ProbeResult]) -> None:
    after = replica(*looks, GONE)
    assert after.error == "the engine is gone"


def test_offline_counts_from_the_look_that_made_it_so() -> None:
    assert replica(READY, GONE, GONE, GONE, GONE, GONE).offline_since_s == 3.0


def test_slots_are_those_announced_until_the_engine_tells_its_own() -> None:
    assert replica(slots_total=2).slots == Slots(2, 2)
    assert replica(READY, slots_total=2).slots == Slots(4, 3)
    assert replica(READY, ProbeResult(HealthAnswer.READY), slots_total=2).slots == Slots(4, 3)


def test_details_are_learnt_once() -> None:
    learnt = ProbeResult(HealthAnswer.READY, details=Description(("m",), 512))
    assert replica(learnt, READY).details == Description(("m",), 512)


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ({"workloads": ["completion"]}, True),
        ({"flags": ["--embeddings"]}, True),
        ({"engine": "vllm"}, True),
        ({"flags": ["--metrics"]}, False),
    ],
)
def test_a_handoff_without_workloads_has_its_llama_server_asked(fields: dict[str, Any], known: bool) -> None:
    model = {"id": "tiny", "path": "/m.gguf", "ctx_max": 512}
    assert (announced_details(handoff(model=model, **fields)) is not None) is known


def test_an_engine_is_looked_at_soon_while_something_is_about_to_change() -> None:
    assert next_check_s(replica()) == CHANGING_INTERVAL_S
    assert next_check_s(replica(LOADING)) == CHANGING_INTERVAL_S
    assert next_check_s(replica(READY, SILENT)) == CHANGING_INTERVAL_S
    assert next_check_s(replica(READY)) == SETTLED_INTERVAL_S
    assert next_check_s(replica(GONE, GONE, GONE)) == SETTLED_INTERVAL_S

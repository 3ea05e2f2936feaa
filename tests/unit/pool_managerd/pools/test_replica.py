"""The state of a replica after each probe."""

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
def test_probe_leads_to_the_expected_state(looks: tuple[ProbeResult, ...], state: PoolState, live: bool) -> None:
    after = replica(*looks)
    assert (after.state, after.live) == (state, live)


@given(results)
def test_offline_after_enough_misses_in_a_row(looks: list[ProbeResult]) -> None:
    misses = len(list(takewhile(lambda look: look in (SILENT, GONE), reversed(looks))))
    assert (replica(*looks).state is PoolState.OFFLINE) == (misses >= OFFLINE_AFTER)


@given(results)
def test_one_good_answer_makes_ready(looks: list[ProbeResult]) -> None:
    after = replica(*looks, READY)
    assert (after.state, after.error, after.offline_since_s) == (PoolState.READY, None, None)


@given(results)
def test_refused_connection_is_never_ready(looks: list[ProbeResult]) -> None:
    assert replica(*looks, GONE).state is not PoolState.READY


@given(results)
def test_unready_replica_has_a_reason(looks: list[ProbeResult]) -> None:
    after = replica(*looks, GONE)
    assert after.error == "the engine is gone"


def test_offline_since_is_the_first_offline_probe() -> None:
    assert replica(READY, GONE, GONE, GONE, GONE, GONE).offline_since_s == 3.0


def test_announced_slots_apply_until_reported() -> None:
    assert replica(slots_total=2).slots == Slots(2, 2)
    assert replica(READY, slots_total=2).slots == Slots(4, 3)
    assert replica(READY, ProbeResult(HealthAnswer.READY), slots_total=2).slots == Slots(4, 3)


def test_description_is_kept() -> None:
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
def test_llama_server_without_workloads_is_asked(fields: dict[str, Any], known: bool) -> None:
    model = {"id": "tiny", "path": "/m.gguf", "ctx_max": 512}
    assert (announced_details(handoff(model=model, **fields)) is not None) is known


def test_changing_engine_is_probed_soon() -> None:
    assert next_check_s(replica()) == CHANGING_INTERVAL_S
    assert next_check_s(replica(LOADING)) == CHANGING_INTERVAL_S
    assert next_check_s(replica(READY, SILENT)) == CHANGING_INTERVAL_S
    assert next_check_s(replica(READY)) == SETTLED_INTERVAL_S
    assert next_check_s(replica(GONE, GONE, GONE)) == SETTLED_INTERVAL_S

"""A sleeping node is woken only for tasks that no node that is awake serves in time."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.contracts.pools import PoolState
from queen_rbee.pools.candidates import Candidate
from queen_rbee.waking.need import LONGEST_PAUSE_S, PATIENCE_S, Waiting, keeps_awake, nodes_to_wake, pause_s

READY = Candidate("p", "n1", "http://n1", PoolState.READY, True, False, 1, 0, "llamacpp", node_id="n1", loadable=True)


def on(node_id: str, state: PoolState = PoolState.ASLEEP, pool_id: str = "p", **changes) -> Candidate:
    ready = state is PoolState.READY
    changes = {"pool_id": pool_id, "replica_id": node_id, "node_id": node_id, "state": state, "ready": ready, **changes}
    return dataclasses.replace(READY, **changes)


def waiting(*suitable: Candidate, waited_s: float = 0.0) -> Waiting:
    return Waiting(suitable, waited_s)


def test_node_is_woken_if_no_other_has_the_model() -> None:
    assert nodes_to_wake([waiting(on("n1"))], ()) == {"n1": "p"}


@pytest.mark.parametrize("state", [PoolState.OFFLINE, PoolState.FAILED])
def test_node_is_woken_if_others_are_down(state: PoolState) -> None:
    assert nodes_to_wake([waiting(on("n1", state), on("n2"))], ()) == {"n2": "p"}


@pytest.mark.parametrize("state", [PoolState.READY, PoolState.UNLOADED])
def test_awake_node_is_given_time_before_another_is_woken(state: PoolState) -> None:
    suitable = on("n1", state), on("n2")
    assert nodes_to_wake([waiting(*suitable, waited_s=PATIENCE_S - 0.1)], ()) == {}
    assert nodes_to_wake([waiting(*suitable, waited_s=PATIENCE_S)], ()) == {"n2": "p"}


def test_drained_pool_does_not_count_as_awake() -> None:
    assert nodes_to_wake([waiting(on("n1", PoolState.READY, draining=True), on("n2"))], ()) == {"n2": "p"}


def test_nothing_is_woken_while_a_model_loads() -> None:
    assert nodes_to_wake([waiting(on("n1", PoolState.STARTING), on("n2"), waited_s=99)], ()) == {}


def test_one_node_at_a_time_is_woken_for_a_task() -> None:
    suitable = on("n1"), on("n2")
    assert nodes_to_wake([waiting(*suitable)], ()) == {"n1": "p"}
    assert nodes_to_wake([waiting(*suitable, waited_s=99)], {"n1"}) == {}


def test_node_that_serves_most_waits_is_woken() -> None:
    waits = [waiting(on("n1"), on("n2")), waiting(on("n2", pool_id="q"))]
    assert nodes_to_wake(waits, ()) == {"n2": "p"}


def test_sleeping_node_without_tasks_sleeps_on() -> None:
    assert nodes_to_wake([], ()) == {}
    assert nodes_to_wake([waiting(on("n1", PoolState.OFFLINE))], ()) == {}


def test_node_with_waiting_tasks_may_not_sleep() -> None:
    waits = [waiting(on("n1", PoolState.UNLOADED), on("n2", PoolState.FAILED))]
    assert keeps_awake(waits, "n1")
    assert not keeps_awake(waits, "n2")
    assert not keeps_awake(waits, "n3")


@given(st.lists(st.lists(st.sampled_from(["n1", "n2", "n3", "n4"]), min_size=1, unique=True), max_size=8))
def test_every_wait_is_served_by_a_woken_node(waits: list[list[str]]) -> None:
    woken = nodes_to_wake([waiting(*map(on, nodes)) for nodes in waits], ())
    assert all(woken.keys() & set(nodes) for nodes in waits)


def test_pauses_between_packets_double_up_to_a_limit() -> None:
    assert [pause_s(sent) for sent in (1, 2, 3, 4, 5, 500)] == [1, 2, 4, 8, LONGEST_PAUSE_S, LONGEST_PAUSE_S]

"""Circuits open by proof or by failures of different requests, and close by a health check alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.dispatch.circuits import (
    CLOSED,
    FAULTS,
    FIRST_LOOK_S,
    FIRST_REST_S,
    LONGEST_LOOK_S,
    LONGEST_REST_S,
    Circuit,
    Fault,
    away,
    checked,
    checking,
    failed,
    worked,
)


def after_faults(*faults: Fault, now: float = 0.0, circuit: Circuit = CLOSED) -> Circuit:
    for fault in faults:
        circuit = failed(circuit, now, fault)
    return circuit


DIFFERENT = [Fault(f"192.0.2.{number}", f"words {number}") for number in range(FAULTS)]


def test_failures_of_different_requests_open_it():
    assert after_faults(*DIFFERENT[:-1]).state == "closed"
    assert after_faults(*DIFFERENT).state == "open"


def test_answer_in_between_clears_the_failures():
    assert worked(after_faults(*DIFFERENT[:-1])) == CLOSED


@given(st.lists(st.builds(Fault, st.just("192.0.2.1"), st.integers()), max_size=50))
def test_one_client_opens_nothing_whatever_it_sends(faults):
    assert after_faults(*faults).state == "closed"


@given(st.lists(st.builds(Fault, st.text(), st.just("the same words")), max_size=50))
def test_one_content_opens_nothing_whoever_sends_it(faults):
    assert after_faults(*faults).state == "closed"


def test_unsure_failure_asks_for_a_health_check_at_once():
    circuit = after_faults(DIFFERENT[0], now=7.0)
    assert (circuit.state, circuit.check_at) == ("closed", 7.0)
    assert checked(checking(circuit), 8.0, well=False).state == "open"
    assert checked(checking(circuit), 8.0, well=True).state == "closed"


def test_proof_opens_it_at_once_and_the_check_follows_soon():
    circuit = away(CLOSED, 100.0)
    assert (circuit.state, circuit.check_at) == ("open", 100.0 + FIRST_LOOK_S)


def test_health_check_closes_it():
    assert checked(checking(away(CLOSED, 0.0)), 1.0, well=True).state == "closed"
    assert checked(checking(after_faults(*DIFFERENT)), 1.0, well=True).state == "closed"


def test_answer_to_a_client_does_not_close_it():
    for circuit in (away(CLOSED, 0.0), checking(away(CLOSED, 0.0)), after_faults(*DIFFERENT)):
        assert worked(circuit).state == circuit.state != "closed"


def test_failure_of_a_task_under_way_prolongs_nothing():
    circuit = away(CLOSED, 0.0)
    assert failed(circuit, 9.0, DIFFERENT[0]) == away(circuit, 9.0) == circuit


def test_stale_health_check_says_nothing():
    """It began before the circuit opened."""
    circuit = away(checking(after_faults(DIFFERENT[0])), 1.0)
    assert checked(circuit, 2.0, well=True) == circuit


def test_it_rests_longer_until_a_task_is_answered():
    again = checked(checking(after_faults(*DIFFERENT)), 1.0, well=True)
    assert after_faults(*DIFFERENT, circuit=again).check_at == 2 * FIRST_REST_S
    assert after_faults(*DIFFERENT, circuit=worked(again)).check_at == FIRST_REST_S


STEPS = st.sampled_from(["failed", "away", "checking", "well", "unwell", "worked"])


def step(circuit: Circuit, name: str, now: float) -> Circuit:
    match name:
        case "failed":
            return failed(circuit, now, Fault(str(now), now))
        case "away":
            return away(circuit, now)
        case "checking":
            return checking(circuit) if circuit.check_at <= now else circuit
        case "worked":
            return worked(circuit)
    return checked(circuit, now, well=name == "well")


@given(st.lists(st.tuples(STEPS, st.floats(0, 100)), max_size=60))
def test_open_circuit_is_always_checked_before_long(steps):
    circuit, now = CLOSED, 0.0
    for name, later_s in steps:
        now += later_s
        before, circuit = circuit, step(circuit, name, now)
        if circuit.state == "open":
            assert circuit.check_at <= now + max(LONGEST_REST_S, LONGEST_LOOK_S)
        if before.state != "closed" and circuit.state == "closed":
            assert name == "well", "nothing else closes it"
        assert len(circuit.faults) < FAULTS


@pytest.mark.parametrize("misses", [0, 1, 10, 1000])
def test_pause_between_checks_grows_and_is_bounded(misses):
    pause_s = away(Circuit(misses=misses), 0.0).check_at
    assert pause_s == min(FIRST_LOOK_S * 2.0 ** min(misses, 16), LONGEST_LOOK_S)
